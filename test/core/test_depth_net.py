"""The network for depth and normals: its distributions and losses, rays, gravity, images of any size."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.spatial.transform import Rotation

from sparc_core.perception.depth_net import (
    DepthNet,
    DepthNetConfig,
    DepthOutput,
    OurDepthNormals,
    geometry_image,
    normal_error_deg,
    ray_image,
    working_size,
)
from sparc_core.training.depth_loss import DepthLosses, depth_losses, halved
from sparc_core.training.picture_batches import PictureBatch
from sparc_core.training.predictors import DepthTraining
from sparc_core.types import Camera

DEPTH = DepthNetConfig(64, 48, channels=(8, 8, 8))


def output(log_depth, log_sigma, normal, kappa):
    return pixels_found(*(torch.tensor([[x]]) for x in (log_depth, log_sigma)),
                        torch.tensor(normal).T[None, :, None], torch.tensor([[kappa]]))  # fmt: skip


def pixels_found(log_depth, log_sigma, normal, kappa):
    """What the network found but for objects."""
    return DepthOutput(log_depth, log_sigma, normal, kappa, torch.zeros_like(log_depth))


def test_depth_losses_by_hand():
    found = output([0.0, 1.0, 5.0], [0.0, -1.0, 0.0], [[0.0, 0, -1], [0, 0, -1], [0, 0, -1]], [1.0, 2.0, 1.0])
    depth = torch.tensor([[[math.e, math.e, 0.0]]])  # the last is not known
    normal = torch.tensor([[0.0, 0, -1], [0, -1.0, 0], [0, 0, 0]]).T[None, :, None]
    losses = depth_losses(found, depth, normal)
    assert float(losses["depth"]) == pytest.approx((0.5 + (0 - 1)) / 2)

    def angular(angle, kappa):
        return kappa * angle - math.log(kappa**2 + 1) + math.log(1 + math.exp(-kappa * math.pi))

    expected = (angular(0, 1) + angular(math.pi / 2, 2)) / 2
    assert float(losses["normal"]) == pytest.approx(expected, abs=2e-3)


def test_beta_lets_uncertain_pixels_count_more():
    log_sigma = [math.log(0.1), math.log(0.4)]
    found = output([0.05, 0.8], log_sigma, [[0.0, 0.0, -1.0]] * 2, [1.0, 1.0])
    found.log_depth.requires_grad_(True)
    truth, normal = torch.ones(1, 1, 2), torch.tensor([[0.0, 0.0, -1.0]] * 2).T[None, :, None]
    nll = [0.5 * (off / sigma) ** 2 + math.log(sigma) for off, sigma in ((0.05, 0.1), (0.8, 0.4))]
    for beta in (0.0, 0.5, 1.0):
        weights = [0.1 ** (2 * beta), 0.4 ** (2 * beta)]
        loss = depth_losses(found, truth, normal, beta)["depth"]
        assert loss.item() == pytest.approx(np.average(nll, weights=weights), rel=1e-4)
        (slope,) = torch.autograd.grad(loss, found.log_depth)
        # of an error as large, the slope is as much smaller as the variance is larger; not at all at 1
        ratio = (slope[0, 0, 1] / 0.8) / (slope[0, 0, 0] / 0.05)
        assert float(ratio) == pytest.approx((0.1 / 0.4) ** (2 - 2 * beta), rel=1e-4)
    with pytest.raises(ValueError, match="beta must be in"):
        DepthTraining(beta=1.5)


def test_beta_and_weights_count_for_normals_as_well():
    kappa, turned = torch.tensor([1.0, 9.0]), [math.radians(40), math.radians(10)]
    normal = torch.tensor([[math.sin(a), 0.0, -math.cos(a)] for a in turned]).T[None, :, None]
    found = pixels_found(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), normal, kappa[None, None])
    truth = torch.tensor([[0.0, 0.0, -1.0]] * 2).T[None, :, None]
    nll = [k * a - math.log(k * k + 1) + math.log(1 + math.exp(-k * math.pi))
           for k, a in zip(kappa.tolist(), turned, strict=True)]  # fmt: skip
    for beta, weight, weights in (
        (0.0, [1.0, 1.0], [1, 1]), (0.5, [1.0, 1.0], [1 / 2, 1 / 10]), (0.5, [3.0, 1.0], [3 / 2, 1 / 10]),
    ):  # fmt: skip
        loss = depth_losses(found, torch.ones(1, 1, 2), truth, beta, torch.tensor([[weight]]))["normal"]
        assert loss.item() == pytest.approx(np.average(nll, weights=weights), rel=1e-4)


def test_pixels_of_objects_count_more_where_that_is_asked_for():
    torch.manual_seed(0)
    network = DepthNet(DEPTH).eval()
    masks = torch.zeros(2, 48, 64, dtype=torch.uint8)
    masks[0, 10:30, 8:40] = masks[1, 20:48, 30:64] = 1
    nothing = {"masks": masks[:0]}
    labelled = torch.ones(2, 48, 64, dtype=torch.bool)
    batch = PictureBatch(
        torch.rand(2, 3, 48, 64), torch.tensor([[60.0, 60.0, 31.5, 23.5]] * 2), torch.zeros(2, 3),
        1 + torch.rand(2, 48, 64), F.normalize(torch.randn(2, 3, 48, 64), dim=1), labelled,
        [{"masks": masks}, nothing],
    )  # fmt: skip
    plain, only = (DepthLosses(network, 0.0, weight)(batch) for weight in (1.0, 1e6))
    inside = (masks.any(0))[None, ::2, ::2]
    rays = ray_image(batch.intrinsics, 48, 64)
    found = network(batch.rgb, rays, batch.up_cam)
    first = DepthOutput(*(getattr(found, f.name)[:1] for f in dataclasses.fields(found)))
    truth = [x[:1] for x in halved(batch.depth_m, batch.normal)]
    expected = depth_losses(first, truth[0] * inside, truth[1] * inside[:, None])
    for name in ("depth", "normal"):
        assert only[name].item() == pytest.approx(expected[name].item(), rel=1e-3)
        assert only[name].item() != pytest.approx(plain[name].item(), rel=1e-3)
    with pytest.raises(ValueError, match="object_weight must be positive"):
        DepthTraining(object_weight=0.0)


def test_what_is_an_object_is_learnt_where_pixels_are_labelled():
    torch.manual_seed(0)
    network = DepthNet(DEPTH).eval()
    masks = torch.zeros(1, 48, 64, dtype=torch.uint8)
    masks[0, 24:30] = 1
    labelled = torch.zeros(1, 48, 64, dtype=torch.bool)
    labelled[0, :30] = True
    batch = PictureBatch(
        torch.rand(1, 3, 48, 64), torch.tensor([[60.0, 60.0, 31.5, 23.5]]), torch.zeros(1, 3),
        torch.ones(1, 48, 64), torch.zeros(1, 3, 48, 64), labelled, [{"masks": masks}],
    )  # fmt: skip
    found = network(batch.rgb, ray_image(batch.intrinsics, 48, 64), batch.up_cam).on_object.sigmoid()[0]
    right = torch.cat((1 - found[:12].flatten(), found[12:15].flatten()))
    assert DepthLosses(network)(batch)["object"].item() == pytest.approx(-right.log().mean().item(), rel=1e-4)


def test_the_normals_distribution_adds_up_and_its_mean_angle_is_the_one_stated():
    for kappa in (0.5, 3.0, 20.0):

        def density(angle, kappa=kappa):
            scale = (kappa**2 + 1) / (2 * math.pi * (1 + math.exp(-kappa * math.pi)))
            return scale * math.exp(-kappa * angle) * 2 * math.pi * math.sin(angle)

        assert quad(density, 0, math.pi)[0] == pytest.approx(1)
        mean = math.degrees(quad(lambda a: a * density(a), 0, math.pi)[0])
        assert float(normal_error_deg(torch.tensor(kappa))) == pytest.approx(mean, rel=1e-4)


def test_rays_are_those_of_the_camera():
    rays = ray_image(torch.tensor([[100.0, 110.0, 31.0, 23.5]]), 48, 64)
    assert rays.shape == (1, 2, 48, 64)
    np.testing.assert_allclose(rays[0, :, 10, 40], [(40 - 31) / 100, (10 - 23.5) / 110], rtol=1e-5)


def test_an_untrained_depth_network_faces_the_camera_and_works_at_any_size():
    torch.manual_seed(0)
    predictor = OurDepthNormals(DepthNet(DEPTH))
    for width, height in ((64, 48), (101, 203)):
        camera = Camera(width, height, 90.0, 95.0, width / 2, height / 2)
        image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
        found = predictor.predict(image, camera)
        assert found.depth_m.shape == found.depth_sigma_m.shape == (height, width)
        np.testing.assert_allclose(np.median(found.depth_m), DEPTH.depth_m, rtol=0.2)
        np.testing.assert_allclose(np.linalg.norm(found.normals_cam, axis=-1), 1, atol=1e-4)
        y, x = np.mgrid[0:height, 0:width]
        ray = np.stack(((x - camera.cx) / 90, (y - camera.cy) / 95, np.ones_like(x)), -1)
        # normals along the rays are those of a sphere about the camera, and the depth agrees with them
        distance = found.depth_m * np.linalg.norm(ray, axis=-1)
        np.testing.assert_allclose(distance, np.median(distance), rtol=0.05)
        assert ((found.normals_cam * ray).sum(-1) < 0).mean() > 0.98
    with pytest.raises(ValueError, match="the camera is 101×203, the image 64×48"):
        predictor.predict(np.zeros((48, 64, 3), np.uint8), camera)
    with pytest.raises(ValueError, match="depth_net width_px must be a multiple of 16.*got 100"):
        DepthNetConfig(width_px=100)


@pytest.mark.parametrize(
    ("image", "expected"),
    [((640, 480), (320, 240)), ((480, 640), (240, 320)), ((1280, 720), (368, 208)), ((2000, 20), (2768, 32))],
)
def test_images_keep_their_shape_at_the_size_of_training(image, expected):
    assert working_size(*image, DepthNetConfig()) == expected


def test_truth_is_taken_every_second_pixel():
    depth, normal = torch.arange(24.0).view(1, 4, 6), torch.arange(72.0).view(1, 3, 4, 6)
    few, faces = halved(depth, normal)
    assert few[0].tolist() == [[0, 2, 4], [12, 14, 16]] and faces.shape == (1, 3, 2, 3)


def test_a_floor_one_metre_below_has_the_logarithm_of_its_depth():
    camera = Camera(64, 48, 50.0, 52.0, 31.0, 23.0)
    R = Rotation.from_euler("xz", [30, 8], degrees=True).as_matrix()  # looking down, rolled
    up = R @ [0.0, -1.0, 0.0]
    rays = ray_image(torch.tensor([[50.0, 52.0, 31.0, 23.0]] * 2), 48, 64)
    told = torch.tensor(np.array([up, np.zeros(3)])).float()
    known, unknown = geometry_image(rays, told)
    for x, y in ((10, 40), (50, 47)):
        ray = np.array([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1])
        depth = 1 / -(up @ ray)  # of the point on the ray that is one metre lower than the camera
        np.testing.assert_allclose((depth * ray) @ up, -1)
        assert float(known[6, y, x]) == pytest.approx(math.log(depth), abs=1e-5)
        assert float(known[5, y, x]) == pytest.approx(up @ ray, abs=1e-5)
    np.testing.assert_allclose(known[2:5, 5, 5], up, rtol=1e-5)
    assert not unknown[2:].any() and torch.equal(known[:2], unknown[:2])
    level = geometry_image(rays, torch.tensor([[0.0, -1.0, 0.0]] * 2))
    assert torch.isfinite(level).all() and float(level[0, 6, 0].max()) == pytest.approx(-math.log(0.05))


def network_and_image():
    """A network with random weights that make a difference, and random pixels."""
    torch.manual_seed(0)
    network = DepthNet(DEPTH)
    torch.nn.init.normal_(network.head.weight)
    return network.eval(), np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def test_gravity_is_told_to_the_network_where_the_camera_knows_it():
    network, image = network_and_image()
    predictor = OurDepthNormals(network)
    camera = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
    down, level = (dataclasses.replace(camera, up_cam=up) for up in ((0, -0.8, -0.6), (0, -1, 0)))
    depths = [predictor.predict(image, c).depth_m for c in (camera, down, level)]
    assert all(np.isfinite(d).all() for d in depths)
    assert all(np.abs(depths[i] - depths[j]).max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_floor_is_told_level_where_gravity_is_known():
    torch.manual_seed(0)
    network = DepthNet(DEPTH).eval()
    torch.nn.init.constant_(network.head.bias[-1], -3)  # sees no objects, and normals along the rays
    predictor = OurDepthNormals(network)
    camera = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    unknown, floor = (
        predictor.predict(image, dataclasses.replace(camera, up_cam=up)) for up in (None, (0, 0, -1))
    )
    ahead = np.s_[16:32, 20:44]  # within 21° of the floor's normal
    np.testing.assert_allclose(floor.normals_cam[ahead], np.broadcast_to((0, 0, -1), (16, 24, 3)), atol=1e-5)
    assert np.ptp(floor.depth_m[ahead]) < 0.3 * np.ptp(unknown.depth_m[ahead])
    assert unknown.normals_cam[ahead][..., 2].max() > -0.999


def test_depth_is_told_with_the_least_expected_relative_error():
    network = DepthNet(DEPTH).eval()
    torch.nn.init.zeros_(network.head.weight)  # the same for every pixel
    network.head.bias.data[1] = 0.3
    sigma = math.exp(-1.5 + 0.3)
    camera = Camera(64, 48, 600.0, 600.0, 31.5, 23.5)  # of so narrow a view that a sphere about it is flat
    found = OurDepthNormals(network).predict(np.zeros((48, 64, 3), np.uint8), camera)
    np.testing.assert_allclose(found.depth_sigma_m / found.depth_m, sigma, rtol=1e-4)
    truths = DEPTH.depth_m * np.exp(sigma * np.random.default_rng(0).normal(size=200_000))
    lower, told, higher = (
        np.mean(np.abs(d - truths) / truths) for d in np.median(found.depth_m) * np.array([0.97, 1, 1.03])
    )
    assert told < lower and told < higher
    assert np.median(found.depth_m) == pytest.approx(DEPTH.depth_m * math.exp(-(sigma**2)), rel=0.003)


def test_an_image_and_its_mirror_image_are_told_the_same():
    network, image = network_and_image()
    predictor = OurDepthNormals(network)
    camera = Camera(64, 48, 60.0, 60.0, 30.0, 23.5, up_cam=(0.2, -0.8, -0.5))
    x, y, z = camera.up_cam
    mirror = dataclasses.replace(camera, cx=63 - camera.cx, up_cam=(-x, y, z))
    seen, other = predictor.predict(image, camera), predictor.predict(image[:, ::-1].copy(), mirror)
    np.testing.assert_allclose(seen.depth_m, other.depth_m[:, ::-1], rtol=1e-4)
    np.testing.assert_allclose(seen.normals_cam, other.normals_cam[:, ::-1] * (-1, 1, 1), atol=1e-4)
    np.testing.assert_allclose(seen.hints.stacked(), other.hints.stacked()[:, ::-1], rtol=1e-3, atol=1e-5)
    rays = ray_image(torch.tensor([[60.0, 60.0, 30.0, 23.5]]), 48, 64)
    given = torch.from_numpy(image).permute(2, 0, 1)[None] / 255, rays, torch.tensor([camera.up_cam])
    with torch.no_grad():
        once, both = network(*given), network.expect_both_ways(*given)
    assert (once.log_depth - both.log_depth).abs().max() > 1e-3
    torch.testing.assert_close(both.normal.norm(dim=1), torch.ones_like(both.kappa))


def test_attention_lets_every_part_of_an_image_see_every_other():
    torch.manual_seed(0)
    rays = ray_image(torch.tensor([[160.0, 160.0, 159.5, 31.5]]), 64, 640)
    plain = torch.rand(1, 3, 64, 640)
    changed = plain.clone()
    changed[..., :32] = 0

    def change(layers):
        network = DepthNet(dataclasses.replace(DEPTH, channels=(8, 8, 16), attention=layers)).eval()
        torch.nn.init.normal_(network.head.weight)
        up = torch.zeros(1, 3)
        with torch.no_grad():
            return (
                (network(plain, rays, up).log_depth - network(changed, rays, up).log_depth)[..., -16:]
                .abs()
                .max()
            )

    assert change(0) == 0 and change(1) > 1e-6
    for wrong, message in (
        ({"attention": -1}, "attention must be at least 0"),
        ({"channels": (8, 8, 10)}, "a last one that 4 divides, got 10"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(DEPTH, **wrong)
