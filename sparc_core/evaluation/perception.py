"""How good predicted boxes, masks, depth and normals are."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field

import numpy as np

from sparc_core.perception.interfaces import DepthNormals, Detector
from sparc_core.synth.picture_set import PictureFolder
from sparc_core.types import Camera, Detection

LOWEST_SCORE = 0.05  # of detections that count for average precision
DELTA = 1.25
NORMAL_LIMITS_DEG = (11.25, 22.5, 30.0)


@dataclass(eq=False)
class DepthFigures:
    """Collects pixels of many images. AbsRel: mean of |d − d*| / d*; δ: share within a factor of 1.25;
    abs_rel_scaled: AbsRel once the image's depths were multiplied by the median of d* / d; normals: shares
    within `NORMAL_LIMITS_DEG`. The mean over images, each image over its pixels, as is
    usual; and over the pixels of objects alone ("object_…"), which floors and walls do not embellish.
    object_iou: of the pixels that are taken for objects, where a predictor tells them."""

    rows: list[dict] = field(default_factory=list)

    def add(self, depth_m, normals_cam, true_depth_m, true_normals_cam, on_object, object_share=None) -> None:
        """One image: (H, W) depths and (H, W, 3) normals, 0 where the truth is not known; on_object (H, W)
        bool, and object_share (H, W) what was predicted of it."""
        row = _depth_row(depth_m, normals_cam, true_depth_m, true_normals_cam)
        if not row:
            return
        known = on_object.astype(np.float32)
        alone = _depth_row(
            depth_m, normals_cam, true_depth_m * known, true_normals_cam * known[..., None]
        ) or dict.fromkeys(row, np.nan)
        row |= {f"object_{name}": value for name, value in alone.items()}
        if object_share is not None and on_object.any():
            found = object_share > 0.5
            row["object_iou"] = float((found & on_object).sum() / (found | on_object).sum())
        self.rows.append(row)

    def summary(self) -> dict[str, float]:
        """Means over the images; NaN of none."""
        names = ("abs_rel", "abs_rel_scaled", "delta", *(f"normals_{limit:g}" for limit in NORMAL_LIMITS_DEG))
        names += tuple(f"object_{name}" for name in names)
        if any("object_iou" in row for row in self.rows):
            names += ("object_iou",)
        return {n: round(_mean([row.get(n, np.nan) for row in self.rows]), 4) for n in names}


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _depth_row(depth_m, normals_cam, true_depth_m, true_normals_cam) -> dict[str, float]:
    """The figures of one image; none where it has no pixels with a truth."""
    known = true_depth_m > 0
    d, truth = np.maximum(depth_m[known], 1e-3), true_depth_m[known]
    faces = np.linalg.norm(true_normals_cam, axis=-1) > 0.5
    cosine = (normals_cam[faces] * true_normals_cam[faces]).sum(-1)
    cosine /= np.linalg.norm(true_normals_cam[faces], axis=-1)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    if not len(d) or not len(angle):
        return {}
    row = {
        "abs_rel": float(np.mean(np.abs(d - truth) / truth)),
        "abs_rel_scaled": float(np.mean(np.abs(np.median(truth / d) * d - truth) / truth)),
        "delta": float(np.mean(np.maximum(d / truth, truth / d) < DELTA)),
    }
    return row | {f"normals_{limit:g}": float((angle <= limit).mean()) for limit in NORMAL_LIMITS_DEG}


@dataclass(eq=False)
class BoxFigures:
    """Collects detections and true boxes of many images for COCO's average precision (pycocotools)."""

    categories: tuple[str, ...]
    truth: list[dict] = field(default_factory=list)
    found: list[dict] = field(default_factory=list)
    images: int = 0

    def add(self, detections: list[Detection], true_boxes_xyxy, true_categories: list[str]) -> None:
        """One image; boxes of both kinds from the same corner of the image."""
        self.images += 1
        for box, category in zip(np.asarray(true_boxes_xyxy).reshape(-1, 4), true_categories, strict=True):
            number = len(self.truth) + 1
            self.truth.append({"id": number, "iscrowd": 0, **self._entry(box, category)})
        for found in detections:
            self.found.append({"score": found.score, **self._entry(found.box_xyxy, found.category)})

    def summary(self) -> dict[str, float]:
        """AP50 and AP (0.50:0.95) of boxes, mean over the categories that occur, as shares."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        if not self.truth:
            return {"box_ap50": float("nan"), "box_ap": float("nan")}
        if not self.found:
            return {"box_ap50": 0.0, "box_ap": 0.0}
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i + 1} for i in range(self.images)],
            "categories": [{"id": i + 1, "name": c} for i, c in enumerate(self.categories)],
            "annotations": self.truth,
        }
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(self.found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {
            "box_ap50": round(float(evaluation.stats[1]), 4), "box_ap": round(float(evaluation.stats[0]), 4)
        }  # fmt: skip

    def _entry(self, box, category: str) -> dict:
        x0, y0, x1, y1 = (float(v) for v in box)
        return {
            "image_id": self.images, "category_id": self.categories.index(category) + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
        }  # fmt: skip


def measure_depth(predictor: DepthNormals, folder: PictureFolder, count: int) -> dict[str, float]:
    """`DepthFigures` of a predictor that is told gravity, on the first `count` pictures of a folder."""
    figures = DepthFigures()
    for i in range(min(count, len(folder))):
        picture = folder.read(i)
        height, width = picture.rgb.shape[:2]
        intrinsics = (float(v) for v in picture.intrinsics)
        camera = Camera(width, height, *intrinsics, up_cam=tuple(picture.up_cam))
        found = predictor.predict(picture.rgb, camera)
        truth = (picture.depth_m, picture.normal_cam, picture.object > 0)
        share = None if found.hints is None else found.hints.object_share
        figures.add(found.depth_m, found.normals_cam, *truth, share)
    return figures.summary()


def measure_detector(
    detector: Detector, categories: tuple[str, ...], folder: PictureFolder, count: int
) -> dict[str, float]:
    """`BoxFigures` of a detector on the first `count` pictures of a folder."""
    figures = BoxFigures(categories)
    for i in range(min(count, len(folder))):
        picture = folder.read(i, ())
        boxes, names = [o.box_xyxy for o in picture.objects], [o.category for o in picture.objects]
        figures.add(detector.detect(picture.rgb), boxes, names)
    return figures.summary()
