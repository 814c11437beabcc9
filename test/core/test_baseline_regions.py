"""What baselines see: the same cells in training as at run time, with a truth that fits them."""

import dataclasses

import numpy as np
import pytest
import torch
from baseline_fixtures import AS_IT_IS, DETECTOR, pictures, reader, region_folder, store, writer
from builders import furniture
from typer.testing import CliRunner

from sparc_core.baselines.reader import RegionReader
from sparc_core.baselines.regions import (
    CELL_CHANNELS,
    CONTEXT_CHANNELS,
    cell_channels,
    grid_pixels,
    read_cells,
    region_context,
)
from sparc_core.perception.mask_rcnn import build_mask_rcnn
from sparc_core.perception.prepare import prepare_image
from sparc_core.pipeline import AlignerConfig
from sparc_core.scripts.main import app
from sparc_core.synth.corrupt import NoiseConfig
from sparc_core.training.region_batches import (
    PREDICTED_ONLY,
    SENSOR_ONLY,
    RegionBatches,
    RegionNoise,
    region_batch,
)
from sparc_core.training.region_store import RegionStore, RegionStoreConfig
from sparc_core.types import CATEGORIES, Camera, Detection

PERFECT = RegionNoise(NoiseConfig(perfect=1.0, sensor=0.0, monocular=0.0, none=0.0), 0.0, 0.0, 0.0)


def all_rows(noise, seed=0):
    return region_batch(store(), torch.arange(len(store())), noise, torch.Generator().manual_seed(seed))


def test_cells_are_read_at_the_pixels_nearest_to_their_centres():
    uv = grid_pixels(torch.tensor([[-0.5, 9.5, 7.5, 13.5]]), torch.tensor([[8.0, 13.0]]), 4)
    assert uv[0, 0, :, 0].tolist() == [0, 2, 4, 6] and uv[0, :, 0, 1].tolist() == [10, 11, 12, 12]
    image = torch.arange(13 * 8).view(13, 8)
    assert read_cells(image, uv)[0, 1].tolist() == [11 * 8 + x for x in (0, 2, 4, 6)]


def test_features_and_masks_are_those_the_detector_itself_makes_of_such_boxes():
    torch.manual_seed(0)
    network = build_mask_rcnn(DETECTOR).eval()
    network.roi_heads.score_thresh, network.roi_heads.detections_per_img = 0.0, 6
    pooled, logits = [], []
    network.roi_heads.mask_roi_pool.register_forward_hook(lambda m, i, out: pooled.append(out))
    network.roi_heads.mask_predictor.register_forward_hook(lambda m, i, out: logits.append(out))
    rgb = torch.rand(3, 144, 200)  # not the network's own size
    with torch.no_grad():
        found = network([rgb])[0]
    assert len(found["boxes"]) == 6
    category = found["labels"] - 1
    features, masks = RegionReader(network).look(rgb, found["boxes"] - 0.5, category)
    torch.testing.assert_close(features, pooled[0], atol=1e-4, rtol=1e-4)
    chosen = logits[0][torch.arange(6), found["labels"]].sigmoid()
    expected = chosen.unflatten(1, (14, 2)).unflatten(3, (14, 2)).mean((2, 4))
    torch.testing.assert_close(masks, expected, atol=1e-4, rtol=1e-4)


def test_a_detector_without_all_categories_is_refused():
    with pytest.raises(ValueError, match=r"must know all nine categories, not \['table'\]"):
        RegionReader(build_mask_rcnn(DETECTOR), CATEGORIES[:-1])


def test_the_truth_of_a_region_fits_what_the_picture_shows():
    batch = all_rows(PERFECT)
    regions, own = batch.regions, batch.own
    assert own.any((1, 2)).all() and batch.noc[own].abs().max() < 0.51
    lifted = batch.truth.transform(batch.noc.flatten(1, 2)).unflatten(1, own.shape[1:])
    torch.testing.assert_close(lifted[own], regions.points_cam[own], atol=2e-5, rtol=1e-4)
    row = 0
    for position in range(len(pictures())):
        picture = pictures().read(position)
        for item in picture.objects:
            uv = regions.uv_px[row].long().numpy()
            depth = picture.depth_m[uv[..., 1], uv[..., 0]]
            np.testing.assert_allclose(regions.depth_m[row], depth, atol=1e-3)
            shown = picture.object[uv[..., 1], uv[..., 0]] == item.number + 1
            assert (own[row].numpy() == (shown & (depth > 0))).all()
            model = furniture().models[furniture().index_of(store().model_ids[row])]
            assert CATEGORIES[regions.category[row]] == model.category == item.category
            assert float(batch.truth.T[row, 2]) == pytest.approx(item.T_m[2])
            row += 1
    assert row == len(store())


def test_a_region_at_run_time_is_that_of_training():
    picture = pictures().read(0)
    camera = Camera(96, 72, *picture.intrinsics, up_cam=tuple(picture.up_cam))
    detections = [Detection(o.box_xyxy, o.category) for o in picture.objects]
    detections[0] = dataclasses.replace(detections[0], mask=picture.object == picture.objects[0].number + 1)
    prepared = prepare_image(
        picture.rgb, camera, detections, picture.depth_m, furniture(), AlignerConfig(depth_masks=False),
        torch.device("cpu"), picture.normal_cam,
    )  # fmt: skip
    seen = reader().read(prepared, [d.category for d in detections])
    rows = torch.arange(len(detections))
    stored = region_batch(store(), rows, PERFECT, torch.Generator()).regions
    # boxes are cut half a pixel earlier at run time, so borders may differ
    inner = [i for i, o in enumerate(picture.objects) if min(o.box_xyxy) > 0 and o.box_xyxy[2] < 95]
    assert inner
    for name in ("features", "uv_px", "depth_m", "boxes_xyxy", "intrinsics", "size_px", "up_cam", "category"):
        found, expected = (getattr(x, name)[inner].float() for x in (seen, stored))
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3, msg=name)
    others = [i for i in inner if i]
    torch.testing.assert_close(seen.mask[others], stored.mask[others], atol=4e-3, rtol=0)
    uv = seen.uv_px[0].long()
    assert torch.equal(seen.mask[0].bool(), torch.from_numpy(detections[0].mask)[uv[..., 1], uv[..., 0]])
    assert not seen.depth_predicted.any()
    with pytest.raises(ValueError, match=r"not \['lamp'\]"):
        reader().read(prepared, ["lamp"] * len(detections))


def test_depth_is_drawn_as_measured_or_as_predicted():
    stored = store().tensors
    predicted = all_rows(PREDICTED_ONLY)
    assert predicted.regions.depth_predicted.all()
    torch.testing.assert_close(predicted.regions.depth_m, stored["depth_seen"].float() / 1000)
    torch.testing.assert_close(predicted.regions.normal_cam, stored["normal_seen"].float() / 127)
    sensor = all_rows(SENSOR_ONLY)
    assert not sensor.regions.depth_predicted.any()
    known = sensor.regions.has_depth & sensor.own
    off = (sensor.regions.depth_m - stored["depth_true"].float() / 1000).abs()[known]
    assert 0 < off.median() < 0.05 and 0.5 < known.sum() / sensor.own.sum() < 1
    mixed = all_rows(RegionNoise(true_masks=1.0, up_missing=1.0))
    assert 0 < mixed.regions.depth_predicted.float().mean() < 1
    assert torch.equal(mixed.regions.mask > 0.5, stored["own"]) and not mixed.regions.up_cam.any()


def test_context_and_channels_by_hand():
    region = all_rows(PERFECT).regions[:1]
    region = dataclasses.replace(
        region, boxes_xyxy=torch.tensor([[0.0, 10, 40, 30]]), intrinsics=torch.tensor([[80.0, 40, 20, 40]]),
        uv_px=torch.zeros_like(region.uv_px), depth_m=torch.full_like(region.depth_m, 2.0),
        category=torch.tensor([3]),
    )  # fmt: skip
    region.depth_m[0, 0, 0] = 1.0
    region.depth_m[0, 0, 1] = 0.0
    context, cells = region_context(region)[0], cell_channels(region)[0]
    assert context.shape == (CONTEXT_CHANNELS,) and cells.shape[-1] == CELL_CHANNELS
    size = [np.log(0.5), np.log(0.5), np.log(2.0)]
    expected = [0.0, -0.5, *size, *region.up_cam[0], 195 / 196, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(context[:14], expected, atol=1e-6)
    assert context[14:].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(cells[0, 0, :5], [-1, -2, -0.25, -1, np.log(0.5)], rtol=1e-5)
    # its ray is (−1/4, −1, 1) and that of the box centre (0, −1/2, 1), at depths of 1 and 2 m
    np.testing.assert_allclose(cells[0, 0, 5:8], [-0.25, 0.0, -1.0], atol=1e-6)
    assert not cells[0, 1, 4:8].any() and cells[0, 1, 11] == 0 and cells[0, 0, 11] == 1
    np.testing.assert_allclose(cells[0, 0, 8:11], region.normal_cam[0, 0, 0])


def test_batches_depend_on_the_generator_alone_and_move():
    draw = [
        RegionBatches(store(), 5, RegionNoise()).draw(torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    ]
    assert torch.equal(draw[0].regions.depth_m, draw[1].regions.depth_m)
    assert torch.equal(draw[0].row, draw[1].row) and not torch.equal(draw[0].row, draw[2].row)
    meta = draw[0].to("meta")
    assert meta.truth.R.device.type == meta.regions.features.device.type == meta.own.device.type == "meta"


def test_preparation_goes_on_where_it_stopped_and_refuses_what_was_made_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("sparc_core.training.region_store.SHARD", 3)
    assert writer().write(pictures(), tmp_path, limit=4) == 2
    assert writer().write(pictures(), tmp_path) == 2  # the second shard was not whole
    assert writer().write(pictures(), tmp_path) == 0
    again = RegionStore.open(tmp_path)
    assert again.model_ids == store().model_ids
    for name, value in store().tensors.items():
        assert torch.equal(again.tensors[name], value), name
    with pytest.raises(ValueError, match="prepared with made_with test, not other; take another folder"):
        writer(made_with="other").write(pictures(), tmp_path)
    with pytest.raises(ValueError, match="prepared with config"):
        writer(RegionStoreConfig()).write(pictures(), tmp_path)
    writer(RegionStoreConfig()).write(pictures(), tmp_path / "b")
    (tmp_path / "b/regions_000000.safetensors").rename(tmp_path / "regions_000009.safetensors")
    with pytest.raises(ValueError, match="prepared in different ways"):
        RegionStore.open(tmp_path)
    with pytest.raises(ValueError, match="holds no regions"):
        RegionStore.open(tmp_path / "none")


def test_variants_show_the_same_objects_in_other_boxes_and_colours(tmp_path):
    writer(RegionStoreConfig(variants=2)).write(pictures(), tmp_path, limit=1)
    twice, count = RegionStore.open(tmp_path), len(pictures().read(0).objects)
    first, second = twice.subset(torch.arange(count)), twice.subset(torch.arange(count, 2 * count))
    assert len(twice) == 2 * count and first.model_ids == second.model_ids
    assert torch.equal(first.tensors["R"], second.tensors["R"])
    for name in ("boxes_xyxy", "features"):
        assert not torch.equal(first.tensors[name], second.tensors[name])
    assert len(store()) > count and region_folder().exists()


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="regions variants must be at least 1, got 0"):
        RegionStoreConfig(variants=0)
    with pytest.raises(ValueError, match=r"regions box_jitter must be in \[0, 1\), got 1.5"):
        dataclasses.replace(AS_IT_IS, box_jitter=1.5)
    with pytest.raises(ValueError, match=r"CAD models \[.*\] are not in the library"):
        other = writer()
        other.order = {}
        other.look(pictures().read(0))


def test_the_command_prepares_regions_with_the_shipped_predictors(tmp_path):
    arguments = ["train-baseline", "regions", "--pictures", str(pictures().folder), "--out", str(tmp_path),
                 "--limit", "1", "--cad-library", "procedural:0-1", "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "regions of 1 pictures" in result.output, result.output
    assert RegionStore.open(tmp_path).tensors["features"].shape[1:] == (96, 14, 14)
    wrong = [*arguments[:-4], "--cad-library", "procedural:5-6"]
    wrong[5] = str(tmp_path / "b")
    assert "are not in the library" in CliRunner().invoke(app, wrong).output
