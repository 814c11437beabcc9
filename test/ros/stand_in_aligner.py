"""An aligner without a network, for tests of the node alone: quick, and its answers are known.

Run as a script it is the align node with this aligner in place of the real one, in a process of its own.
"""

import time

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from sparc_core.cad.library import CadLibrary
from sparc_core.pipeline import AlignerConfig
from sparc_core.types import AlignedObject, AlignmentResult, SkippedDetection
from sparc_ros.node import AlignNode
from sparc_ros.run_node import run_node
from sparc_ros.stopping import leave

# Scores of detections that make the aligner misbehave.
BREAKS, HANGS = 0.111, 0.222
HANG_S = 20.0


def _compute(seconds):
    """Keep PyTorch busy as a long forward pass does: a thread in C++ ends differently from one asleep."""
    end, values = time.monotonic() + seconds, torch.rand(400, 400)
    while time.monotonic() < end:
        values = (values @ values).clamp(0, 1)


class StandInAligner:
    """Puts the category's first model on the ray through the box centre, at the depth found there."""

    def __init__(self, spec="procedural:0-0"):
        self.cad_library = CadLibrary.open(spec)
        self.cameras, self.device, self.config = [], "cpu", AlignerConfig()

    def align(
        self,
        image_rgb,
        camera,
        detections,
        depth_m=None,
        normals_cam=None,
        *,
        depth_predicted=False,
        hints=None,
        starts=None,
    ):
        self.cameras.append(camera)
        objects, skipped = [], []
        for index, detection in enumerate(detections):
            if abs(detection.score - BREAKS) < 1e-3:
                raise RuntimeError("the stand-in aligner was asked to break")
            if abs(detection.score - HANGS) < 1e-3:
                _compute(HANG_S)
            x0, y0, x1, y1 = detection.box_xyxy
            u, v = (x0 + x1) / 2, (y0 + y1) / 2
            if x1 <= x0 or y1 <= y0 or not (0 <= u < camera.width and 0 <= v < camera.height):
                skipped.append(SkippedDetection(index, "the box has no pixel on the image"))
                continue
            z = 2.0 if depth_m is None else float(depth_m[int(v), int(u)]) or 2.0
            objects.append(self._object(index, detection, camera, u, v, z))
        return AlignmentResult(camera, tuple(objects), tuple(skipped), {"total": 1.0})

    def _object(self, index, detection, camera, u, v, z):
        model = self.cad_library.models[self.cad_library.indices_of_category(detection.category)[0]]
        T_m = np.array([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z])
        R = Rotation.from_euler("xyz", (2.9, 0.4, 0.1)).as_matrix()
        return AlignedObject(
            index, detection.category, model.model_id, detection.box_xyxy, R, T_m, model.extents_m,
            detection.score, "azimuth_0",
        )  # fmt: skip


if __name__ == "__main__":
    leave(run_node(lambda: AlignNode(lambda *_: StandInAligner()), "align_node"))
