"""Small CAD models, poses and scenes that several tests of the method share."""

import functools

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation

from sparc_core.cad.library import CadLibrary, build_model
from sparc_core.cad.tensors import CadTensors
from sparc_core.geometry.pose import Pose
from sparc_core.synth.picture_set import PictureSet, PictureSetConfig, write_picture
from sparc_core.synth.pictures import PictureConfig
from sparc_core.synth.raycast import RayCaster
from sparc_core.synth.scenes import SceneBatch
from sparc_core.types import BoxEstimate


def model_of(mesh, model_id, category, symmetry="none"):
    """A `CadModel` of a trimesh in metres, y up."""
    colors = np.full((len(mesh.faces), 3), 128, np.uint8)
    return build_model(
        model_id,
        category,
        np.asarray(mesh.vertices, np.float64),
        np.asarray(mesh.faces),
        colors,
        "test",
        symmetry,
    )


@functools.cache
def shapes() -> CadLibrary:
    """Four convex models: 0 a lopsided wedge (chair), 1 a box (bin, c4), 2 a cylinder (table, cinf) and
    3 a ball stretched along x (sofa, c2)."""
    wedge = trimesh.convex.convex_hull(
        [[0, 0, 0], [0.6, 0, 0], [0.6, 0, 0.4], [0, 0, 0.5], [0.1, 0.9, 0.1], [0.3, 0.7, 0.3]]
    )
    upright = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])
    cylinder = trimesh.creation.cylinder(0.5, 0.7, sections=36, transform=upright)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    ball.apply_scale([2.0, 0.8, 1.0])
    return CadLibrary([
        model_of(wedge, "wedge", "chair"),
        model_of(trimesh.creation.box([0.5, 0.6, 0.5]), "box", "bin", "c4"),
        model_of(cylinder, "cylinder", "table", "cinf"),
        model_of(ball, "ball", "sofa", "c2"),
    ])  # fmt: skip


@functools.cache
def furniture() -> CadLibrary:
    """Two procedural models of each category."""
    return CadLibrary.procedural(range(2))


@functools.cache
def shape_caster() -> RayCaster:
    """A ray caster for `shapes`."""
    return RayCaster(shapes())


@functools.cache
def shape_tensors() -> CadTensors:
    """`shapes` as tensors."""
    return CadTensors.from_library(shapes())


def random_poses(*shape, seed=0, dtype=torch.float64) -> Pose:
    """Any rotation, 1 to 5 m in front of the camera and up to 1.5 m aside, extents from 0.3 to 2 m."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    R = Rotation.from_quat(rng.normal(size=(count, 4))).as_matrix().reshape(*shape, 3, 3)
    T = rng.uniform([-1.5, -1.5, 1.0], [1.5, 1.5, 5.0], (*shape, 3))
    S = rng.uniform(0.3, 2.0, (*shape, 3))
    return Pose(*(torch.tensor(value, dtype=dtype) for value in (R, T, S)))


def scene_of(
    model, pose: Pose, planes=(), present=None, intrinsics=(500.0, 500.0, 319.5, 239.5)
) -> SceneBatch:
    """One scene (B = 1) with the given library positions, poses (O,) and planes (normal, offset)."""
    count = len(model)
    normals = torch.tensor([n for n, _ in planes], dtype=torch.float32).reshape(1, -1, 3)
    offsets = torch.tensor([o for _, o in planes], dtype=torch.float32).reshape(1, -1)
    return SceneBatch(
        count, torch.tensor([model]), pose.map(lambda x: x[None].float()),
        torch.tensor([present if present is not None else [True] * count]), normals, offsets,
        torch.tensor([intrinsics]), torch.tensor([[640.0, 480.0]]), torch.tensor([[0.0, -1.0, 0.0]]),
        torch.tensor([True]), torch.full((1, count + len(planes), 3), 0.5),
        torch.zeros(1, count, dtype=torch.bool),
    )  # fmt: skip


def posed_mesh(model, R, T, S) -> trimesh.Trimesh:
    """A CAD model's mesh in the camera frame, computed with numpy alone."""
    vertices = (np.asarray(model.vertices, np.float64) * np.asarray(S)) @ np.asarray(R, np.float64).T
    return trimesh.Trimesh(vertices + np.asarray(T), model.faces, process=False)


def write_pictures(folder, count, width, height):
    """`count` small pictures of the test furniture in a folder, which is returned."""
    pictures = PictureSet(furniture(), PictureSetConfig(pictures=PictureConfig(width, height)))
    lines = [write_picture(folder, i, *pictures.draw(i)) for i in range(count)]
    (folder / "pictures.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def box_estimate(azimuth=(0.0,) * 6, T_m=(0.1, 0.2, 2.0), S_m=(0.5, 0.9, 0.6)) -> BoxEstimate:
    """What a box network might say of a detection."""
    return BoxEstimate(tuple(azimuth), tuple(T_m), 0.1, tuple(S_m), 0.2)
