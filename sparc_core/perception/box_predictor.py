"""The box network at run time: detections in, with what it makes of them out, and corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sparc_core.geometry.camera import intrinsics_tensor
from sparc_core.perception.box_inputs import BoxInputs, cut_square, flags_of, place_of, square_of
from sparc_core.perception.box_net import BoxNet, BoxNetConfig, BoxOutput, corrected, placed, shortened
from sparc_core.perception.device_fallback import MovableNetwork
from sparc_core.perception.interfaces import require_size
from sparc_core.perception.judgement import distinct_objects, leads_of, lowest_score, weigh
from sparc_core.perception.predictor_file import load_predictor
from sparc_core.perception.rectify import rectifier_for
from sparc_core.types import BoxEstimate, Camera, Detection

SMALLEST_PX = 4.0  # side of a box that is looked at


@dataclass(frozen=True, eq=False)
class _Pinhole:
    """An image without distortion and its camera."""

    image_rgb: np.ndarray
    camera: Camera


class BoxPredictor:
    """An `Estimates` from our own network."""

    def __init__(self, network: BoxNet, device="cpu"):
        self.config = network.config
        self.network = MovableNetwork(network, device, "box network")

    @classmethod
    def load(cls, weights: Path, device="cpu") -> BoxPredictor:
        """From a file of `sparc train-perception boxes`. Raises ValueError naming the file."""
        return cls(load_predictor(weights, BoxNetConfig, BoxNet)[0], device)

    def look(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection],
        judged_min_score: float | None = None,
    ) -> list[Detection]:
        """See `Estimates`. Raises ValueError when image and camera differ in size."""
        require_size(image_rgb, camera)
        rectifier = rectifier_for(camera)
        pinhole = _Pinhole(rectifier.image(image_rgb), rectifier.camera)
        found = list(detections)
        if judged_min_score is not None:
            found = self._judged(found, rectifier, pinhole, camera, judged_min_score)
        boxes, seen = _visible(found, rectifier)
        if seen:
            inputs = self._inputs(pinhole, boxes, [found[i].category for i in seen])
            output = self.network.run(lambda network, device: network.expect_both_ways(inputs.to(device)))
            output = BoxOutput(**{name: value.cpu() for name, value in vars(output).items()})
            for i, estimate in zip(seen, estimates(output, boxes, rectifier.camera), strict=True):
                found[i] = replace(found[i], estimate=estimate)
        return found

    def _judged(
        self, found: list[Detection], rectifier, pinhole: _Pinhole, camera: Camera, min_score: float
    ) -> list[Detection]:
        """Boxes corrected, in all categories in which their weighed scores are not too low; what is too small
        to look at, or of a category that the network does not know, as it is."""
        boxes, seen = _visible(found, rectifier)
        place = {i: n for n, i in enumerate(seen) if found[i].category in self.config.categories}
        judged, own = [d for i, d in enumerate(found) if i not in place], list(place)
        leads, scores = leads_of([found[i] for i in own], self.config.categories)
        promising = (scores.amax(1) >= lowest_score(min_score)).nonzero()[:, 0]
        if len(promising):
            lead = [own[leads[n]] for n in promising.tolist()]
            given = [found[i] for i in lead]
            inputs = self._inputs(pinhole, boxes[[place[i] for i in lead]], [d.category for d in given])
            look = self.network.run(lambda network, device: network.look_both_ways(inputs.to(device)))
            # of a lens with distortion the sides of the raw box move by the same shares
            moved = corrected(torch.tensor([d.box_xyxy for d in given]), look.sides[:, :4].cpu())
            size = torch.tensor([camera.width, camera.height] * 2)
            moved = torch.minimum(moved.clamp(min=-0.5), size - 0.5)
            weighed = weigh(scores[promising], look.logits.cpu())
            for d, box, row in zip(given, moved.tolist(), weighed.tolist(), strict=True):
                for name, score in zip(self.config.categories, row, strict=True):
                    judged.append(replace(d, category=name, box_xyxy=tuple(box), score=score))
        return distinct_objects(judged, min_score)

    def _category(self, name: str) -> int:
        return self.config.categories.index(name) if name in self.config.categories else -1

    def _inputs(self, pinhole: _Pinhole, boxes: torch.Tensor, names: list[str]) -> BoxInputs:
        size, count, camera = self.config.size_px, len(boxes), pinhole.camera
        category = torch.tensor([self._category(name) for name in names])
        centre, half = square_of(boxes)
        around = zip(centre.numpy(), half.tolist(), strict=True)
        squares = np.stack([cut_square(pinhole.image_rgb, c, h, size) for c, h in around])
        size_px = torch.tensor([[camera.width, camera.height]], dtype=torch.float32).expand(count, 2)
        intrinsics = intrinsics_tensor(camera).expand(count, 4)
        up = torch.tensor([camera.up_cam or (0.0, 0.0, 0.0)]).float().expand(count, 3)
        flags = flags_of(boxes, centre, half, size_px, size)
        rgb = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
        place, picture = place_of(boxes, intrinsics, size_px, up), torch.zeros(count, dtype=torch.int64)
        return BoxInputs(torch.cat((rgb, flags), 1), place, category, picture)


def _visible(detections: Sequence[Detection], rectifier) -> tuple[torch.Tensor, list[int]]:
    """Boxes (K, 4) on the rectified image, and which detections they are of: all that are large enough."""
    boxes = rectifier.boxes(np.array([d.box_xyxy for d in detections], dtype=np.float64).reshape(-1, 4))
    boxes = np.clip(boxes, 0, np.tile([rectifier.camera.width - 1, rectifier.camera.height - 1], 2))
    seen = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= SMALLEST_PX).all(1)).tolist()
    return torch.from_numpy(boxes[seen]).float(), seen


def estimates(found: BoxOutput, boxes_xyxy: torch.Tensor, camera: Camera) -> list[BoxEstimate]:
    """What was found of the boxes (K, 4) of a pinhole camera."""
    T = placed(found, boxes_xyxy, intrinsics_tensor(camera).expand(len(boxes_xyxy), 4))
    columns = (
        shortened(found.harmonics), T, found.distance[:, 1].exp(), found.extents[:, :3].exp(),
        found.extents[:, 3].exp(),
    )  # fmt: skip
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [BoxEstimate(tuple(azimuth), tuple(T), d, tuple(S), e) for azimuth, T, d, S, e in rows]
