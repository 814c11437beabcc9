"""Rays cast into synthetic scenes with NVIDIA Warp, on CPU and GPU through one code path.

Only the pixels asked for are cast. Every CAD model is one mesh with a BVH built once; objects are
affine images of the unit cube, so rays are carried into the cube instead of meshes into the room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import warp as wp

from sparc_core.cad.library import CadLibrary
from sparc_core.geometry.camera import bearing_z1
from sparc_core.synth.scenes import SceneBatch

NOTHING = -1


@dataclass(frozen=True, eq=False)
class RayHits:
    """What rays through (B, K) pixels met first.

    depth_m (B, K) z-depth, 0 where nothing was hit; normal_cam (B, K, 3) unit, facing the camera, in
    the camera frame; slot (B, K) int64: an object slot, O + plane number, or NOTHING; face (B, K)
    int64 mesh face (-1 on planes).
    """

    depth_m: torch.Tensor
    normal_cam: torch.Tensor
    slot: torch.Tensor
    face: torch.Tensor


@wp.func
def _meets_cube(origin: wp.vec3, unit: wp.vec3, reach: wp.float32) -> bool:
    """Whether a ray meets the unit cube within reach: slab test, the cube grown a little for flat faces lying
    on it."""
    near = wp.float32(0.0)
    far = reach
    for axis in range(3):
        if wp.abs(unit[axis]) > 1.0e-9:
            t0 = (-0.501 - origin[axis]) / unit[axis]
            t1 = (0.501 - origin[axis]) / unit[axis]
            near = wp.max(near, wp.min(t0, t1))
            far = wp.min(far, wp.max(t0, t1))
        elif wp.abs(origin[axis]) > 0.501:
            far = -1.0
    return near <= far


@wp.kernel
def _cast_rays(
    mesh_ids: wp.array(dtype=wp.uint64),
    R: wp.array2d(dtype=wp.mat33),
    T: wp.array2d(dtype=wp.vec3),
    S: wp.array2d(dtype=wp.vec3),
    model: wp.array2d(dtype=wp.int32),
    plane_normal: wp.array2d(dtype=wp.vec3),
    plane_offset: wp.array2d(dtype=wp.float32),
    rays: wp.array2d(dtype=wp.vec3),
    depth: wp.array2d(dtype=wp.float32),
    normal: wp.array2d(dtype=wp.vec3),
    slot: wp.array2d(dtype=wp.int32),
    face: wp.array2d(dtype=wp.int32),
):
    b, k = wp.tid()
    ray = rays[b, k]
    # wp.float32 and wp.int32 declare variables; a bare number would be a constant that loops cannot change
    best = wp.float32(1.0e4)
    best_normal = wp.vec3(0.0, 0.0, 0.0)
    best_slot = wp.int32(-1)
    best_face = wp.int32(-1)
    slots = model.shape[1]
    for plane in range(plane_normal.shape[1]):
        along = wp.dot(plane_normal[b, plane], ray)
        if along < 0.0:
            t = plane_offset[b, plane] / along
            if t > 0.0 and t < best:
                best = t
                best_normal = plane_normal[b, plane]
                best_slot = slots + plane
    for o in range(slots):
        if model[b, o] >= 0:
            to_object = wp.transpose(R[b, o])
            size = S[b, o]
            origin = wp.cw_div(to_object * (-T[b, o]), size)
            direction = wp.cw_div(to_object * ray, size)
            # The query wants a unit direction; lengths along it over `length` are z-depths again,
            # because affine maps keep ratios along a line and the camera ray has z = 1.
            length = wp.length(direction)
            unit = direction / length
            if _meets_cube(origin, unit, best * length):
                hit = wp.mesh_query_ray(mesh_ids[model[b, o]], origin, unit, best * length)
                if hit.result:
                    t = hit.t / length
                    if t < best:
                        best = t
                        best_normal = R[b, o] * wp.cw_div(hit.normal, size)
                        best_slot = o
                        best_face = hit.face
    if best_slot >= 0:
        best_normal = wp.normalize(best_normal)
        if wp.dot(best_normal, ray) > 0.0:
            best_normal = -best_normal
        depth[b, k] = best
        normal[b, k] = best_normal
    slot[b, k] = best_slot
    face[b, k] = best_face


@wp.kernel
def _find_blocked(
    mesh_ids: wp.array(dtype=wp.uint64),
    R: wp.array2d(dtype=wp.mat33),
    T: wp.array2d(dtype=wp.vec3),
    S: wp.array2d(dtype=wp.vec3),
    model: wp.array2d(dtype=wp.int32),
    start: wp.array2d(dtype=wp.vec3),
    end: wp.array2d(dtype=wp.vec3),
    blocked: wp.array2d(dtype=wp.int32),
):
    b, k = wp.tid()
    found = wp.int32(0)
    for o in range(model.shape[1]):
        if model[b, o] >= 0 and found == 0:
            to_object = wp.transpose(R[b, o])
            size = S[b, o]
            origin = wp.cw_div(to_object * (start[b, k] - T[b, o]), size)
            direction = wp.cw_div(to_object * (end[b, k] - start[b, k]), size)
            length = wp.length(direction)
            unit = direction / wp.max(length, 1.0e-9)
            if _meets_cube(origin, unit, length):
                hit = wp.mesh_query_ray(mesh_ids[model[b, o]], origin, unit, length)
                if hit.result:
                    found = 1
    blocked[b, k] = found


class RayCaster:
    """Holds the library's meshes on one device and casts rays into scenes made of them."""

    def __init__(self, library: CadLibrary, device: str = "cpu"):
        wp.config.quiet = True
        wp.init()
        self.device = str(device)
        self._meshes = [
            wp.Mesh(
                wp.array(model.vertices, dtype=wp.vec3, device=self.device),
                wp.array(model.faces.ravel(), dtype=wp.int32, device=self.device),
            )
            for model in library.models
        ]
        ids = [int(mesh.id) for mesh in self._meshes]
        self._ids = wp.array(ids, dtype=wp.uint64, device=self.device)
        counts = torch.tensor([len(model.faces) for model in library.models])
        self._first_face = (counts.cumsum(0) - counts).to(self.device)
        colors = np.concatenate([model.face_colors for model in library.models])
        self._face_colors = torch.from_numpy(colors).to(self.device)

    def cast(self, scene: SceneBatch, uv_px: torch.Tensor) -> RayHits:
        """First hits through the pixels uv_px (B, K, 2) of every scene."""
        batch, count = uv_px.shape[:2]
        model = _present_models(scene)
        rays = bearing_z1(uv_px, scene.intrinsics)
        depth = torch.zeros(batch, count, device=uv_px.device)
        normal = torch.zeros(batch, count, 3, device=uv_px.device)
        slot = torch.zeros(batch, count, dtype=torch.int32, device=uv_px.device)
        face = torch.zeros(batch, count, dtype=torch.int32, device=uv_px.device)
        wp.launch(
            _cast_rays,
            dim=(batch, count),
            inputs=[
                self._ids,
                _view(scene.pose.R, wp.mat33),
                _view(scene.pose.T, wp.vec3),
                _view(scene.pose.S, wp.vec3),
                _view(model, wp.int32),
                _view(scene.plane_normal, wp.vec3),
                _view(scene.plane_offset, wp.float32),
                _view(rays, wp.vec3),
                _view(depth, wp.float32),
                _view(normal, wp.vec3),
                _view(slot, wp.int32),
                _view(face, wp.int32),
            ],
            device=self.device,
            stream=_stream_of(uv_px),
        )
        # A degenerate triangle can answer with a normal of length zero; such a hit faces the camera.
        broken = (slot >= 0)[..., None] & ~(normal.norm(dim=-1, keepdim=True) > 0.5)
        normal = torch.where(broken, -F.normalize(rays, dim=-1), normal)
        return RayHits(depth, normal, slot.long(), face.long())

    def blocked(self, scene: SceneBatch, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """(B, K) bool: whether an object stands between the points start and end (B, K, 3) in the camera
        frame."""
        found = torch.zeros(start.shape[:2], dtype=torch.int32, device=start.device)
        wp.launch(
            _find_blocked,
            dim=tuple(found.shape),
            inputs=[
                self._ids,
                _view(scene.pose.R, wp.mat33),
                _view(scene.pose.T, wp.vec3),
                _view(scene.pose.S, wp.vec3),
                _view(_present_models(scene), wp.int32),
                _view(start, wp.vec3),
                _view(end, wp.vec3),
                _view(found, wp.int32),
            ],
            device=self.device,
            stream=_stream_of(start),
        )
        return found > 0

    def albedo(self, scene: SceneBatch, hits: RayHits) -> torch.Tensor:
        """(B, K, 3) colours in [0, 1] of what was hit, without light: of the CAD models' faces, of recoloured
        objects (patches of one colour) and of planes, which are pale; light grey where nothing was hit."""
        slots = scene.model.shape[1]
        on_object, on_plane = (hits.slot >= 0) & (hits.slot < slots), hits.slot >= slots
        slot = torch.where(on_object, hits.slot, 0)
        face = self._first_face[scene.model.gather(1, slot)] + hits.face.clamp(min=0)
        of_model = self._face_colors[torch.where(on_object, face, 0)].float() / 255
        own = scene.albedo.gather(1, hits.slot.clamp(min=0)[..., None].expand(-1, -1, 3))
        patch = ((hits.face // 12) * 0.618034) % 1.0
        recoloured = scene.recoloured.gather(1, slot)[..., None]
        of_object = torch.where(recoloured, own * (0.7 + 0.6 * patch[..., None]), of_model)
        of_plane = torch.where(on_plane[..., None], 0.55 + 0.35 * own, 0.745)
        return torch.where(on_object[..., None], of_object, of_plane)


def _present_models(scene: SceneBatch) -> torch.Tensor:
    """(B, O) int32 library indices, −1 where no object is."""
    return torch.where(scene.present, scene.model, torch.full_like(scene.model, -1)).int()


def _stream_of(tensor: torch.Tensor):
    """PyTorch's stream, which rays and results belong to: Warp has one of its own. None on a CPU."""
    return wp.stream_from_torch(torch.cuda.current_stream(tensor.device)) if tensor.is_cuda else None


def _view(tensor: torch.Tensor, dtype):
    return wp.from_torch(tensor.detach().contiguous(), dtype=dtype)
