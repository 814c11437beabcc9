"""Gravity from depth, against scenes whose up direction is known."""

import numpy as np
import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.synthetic import SyntheticSetConfig, synthetic_images
from sparc_core.geometry.camera import bearing_z1, intrinsics_tensor
from sparc_core.perception.gravity import estimate_up
from sparc_core.synth.render import pixel_grid

INTRINSICS = torch.tensor([500.0, 500.0, 319.5, 239.5])


def plane_depth(normal, distance):
    """(480, 640) depth of the plane normal · x = −distance, 0 where it is not in front."""
    rays = bearing_z1(pixel_grid(640, 480), INTRINSICS[None])[0]
    along = rays @ torch.tensor(normal, dtype=torch.float32)
    depth = torch.where(along < -1e-3, -distance / along, torch.zeros_like(along))
    return torch.where(depth < 8, depth, torch.zeros_like(depth)).reshape(480, 640)


def test_a_floor_seen_from_above_gives_its_normal():
    up = np.array([0.05, -0.85, -0.5])
    up /= np.linalg.norm(up)
    found = estimate_up(plane_depth(up.tolist(), 1.2), INTRINSICS)
    assert np.degrees(np.arccos(np.clip(found.numpy() @ up, -1, 1))) < 0.5


def test_a_wall_alone_gives_nothing():
    assert estimate_up(plane_depth([0.3, 0.1, -0.95], 2.0), INTRINSICS) is None


def test_no_depth_gives_nothing():
    assert estimate_up(torch.zeros(480, 640), INTRINSICS) is None


def test_rooms_with_sensor_noise_are_mostly_read_right():
    library = CadLibrary.procedural(range(2))
    errors = []
    for image in synthetic_images(library, SyntheticSetConfig(scenes=12, seed=5)):
        up = estimate_up(torch.from_numpy(image.depth_m), intrinsics_tensor(image.camera))
        if up is not None:
            errors.append(np.degrees(np.arccos(np.clip(up.numpy() @ np.array(image.camera.up_cam), -1, 1))))
    assert len(errors) >= 8
    assert np.median(errors) < 2
    assert np.mean(np.array(errors) < 5) >= 0.8
