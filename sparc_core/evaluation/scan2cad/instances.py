"""COCO's average precision of boxes and masks of a method's detections (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

from sparc_core.datasets.categories import category_of_synset
from sparc_core.datasets.prepared import encode_mask
from sparc_core.datasets.scannet import HEIGHT, WIDTH
from sparc_core.datasets.truth import FrameObject
from sparc_core.evaluation.scan2cad.predictions import FramePrediction
from sparc_core.types import CATEGORIES

HALF_PIXEL = 0.5


class InstanceFigures:
    """Collects frames. What the sensor does not see (a hidden object) is neither asked for nor a mistake:
    COCO's crowd flag. Truth is the part of an object that no other CAD model hides, and the box around it."""

    def __init__(self):
        self.images, self.truth, self.found = 0, [], []
        self.have_masks = True

    def add(self, predictions: Sequence[FramePrediction], objects: Sequence[tuple[str, FrameObject]]) -> None:
        """One frame: detections with boxes, and masks where the method gives them; objects with synsets."""
        self.images += 1
        for synset, item in objects:
            if item.mask_box_xyxy is None:
                continue
            self.truth.append({
                **self._entry(item.mask_box_xyxy, category_of_synset(synset)), "id": len(self.truth) + 1,
                "iscrowd": int(not item.visible), "segmentation": encode_mask(item.mask),
                "area": float(item.mask.sum()),
            })  # fmt: skip
        for p in predictions:
            entry = {**self._entry(p.box_xyxy, p.category), "score": p.detection_score}
            if p.segmentation is None:
                self.have_masks = False
            else:
                entry["segmentation"] = p.segmentation
            self.found.append(entry)

    def summary(self) -> dict[str, float | None]:
        """Percent, mean over the categories that occur: AP50 and AP (0.50:0.95) of boxes, and of masks, None
        where a detection came without one."""
        figures = {}
        for kind in ("bbox", "segm"):
            name = "box" if kind == "bbox" else "mask"
            known = kind == "bbox" or self.have_masks
            ap, ap50 = self._evaluate(kind) if known else (None, None)
            figures |= {f"{name}_ap50": ap50, f"{name}_ap": ap}
        return figures

    def _evaluate(self, kind: str) -> tuple[float, float]:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        if not any(not entry["iscrowd"] for entry in self.truth):
            return float("nan"), float("nan")
        if not self.found:
            return 0.0, 0.0
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i + 1, "width": WIDTH, "height": HEIGHT} for i in range(self.images)],
            "categories": [{"id": i + 1, "name": c} for i, c in enumerate(CATEGORIES)],
            "annotations": self.truth,
        }  # fmt: skip
        found = [{k: v for k, v in e.items() if k != ("segmentation" if kind == "bbox" else "bbox")}
                 for e in self.found]  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(found), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return 100 * float(evaluation.stats[0]), 100 * float(evaluation.stats[1])

    def _entry(self, box_xyxy, category: str) -> dict:
        x0, y0, x1, y1 = (float(v) + HALF_PIXEL for v in box_xyxy)  # COCO counts from the image's corner
        return {
            "image_id": self.images, "category_id": CATEGORIES.index(category) + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }  # fmt: skip
