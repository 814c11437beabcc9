"""The align node with a GPU that can be told to fail: started by `ros_soak.py`.

The network runs on the CPU but says that it is on a GPU, and raises CUDA's error for a detection of the score
GPU_FAILS. Once loaded for the CPU it is the aligner as it is. With the argument `no-network` no image is
aligned: every answer is empty, at once, to look at the node alone.
"""

from __future__ import annotations

import dataclasses
import sys

import torch

from sparc_core.types import AlignmentResult
from sparc_ros.loading import load_aligner
from sparc_ros.node import AlignNode
from sparc_ros.run_node import run_node
from sparc_ros.stopping import leave

GPU_FAILS = 0.123
NO_NETWORK = "no-network"


class QuickAligner:
    """An aligner that finds nothing, at once."""

    def __init__(self, aligner):
        self.cad_library, self.device = aligner.cad_library, aligner.device

    def align(self, image_rgb, camera, detections, *arguments, **keywords):
        """No objects."""
        return AlignmentResult(camera)


class FailingAligner:
    """An aligner that raises CUDA's error when it is asked to."""

    def __init__(self, aligner):
        self._aligner, self.cad_library, self.device = aligner, aligner.cad_library, "cuda (pretended)"

    def align(self, image_rgb, camera, detections, *arguments, **keywords):
        """As the aligner's."""
        if any(abs(detection.score - GPU_FAILS) < 1e-3 for detection in detections):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered (pretended)")
        return self._aligner.align(image_rgb, camera, detections, *arguments, **keywords)


def load(parameters, library=None):
    """The aligner on the CPU; with `device` auto it pretends to be on a GPU."""
    aligner = load_aligner(dataclasses.replace(parameters, device="cpu"), library)
    if NO_NETWORK in sys.argv:
        aligner = QuickAligner(aligner)
    return aligner if parameters.device == "cpu" else FailingAligner(aligner)


if __name__ == "__main__":
    leave(run_node(lambda: AlignNode(load), "align_node"))
