"""Frozen data types handed from stage to stage.

Everything here is plain numpy: images and detections come in, aligned objects go out. Batched
torch poses live in `sparc_core.geometry.pose`. Frames and units follow `docs/conventions.md`:
optical camera frame (x right, y down, z forward), metres, CAD frame y up and front +z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

CATEGORIES = ("bathtub", "bed", "bin", "bookshelf", "cabinet", "chair", "display", "sofa", "table")
SYMMETRIES = ("none", "c2", "c4", "cinf")
AZIMUTH_ORDERS = (1, 2, 4)  # harmonics of `BoxEstimate.azimuth`
HINT_CHANNELS = 2  # of `PixelHints`
ESTIMATE_NUMBERS = 2 * len(AZIMUTH_ORDERS) + 8  # of `BoxEstimate.packed`
ESTIMATE_T = slice(2 * len(AZIMUTH_ORDERS), 2 * len(AZIMUTH_ORDERS) + 3)  # of them: the centre
ESTIMATE_S = slice(ESTIMATE_T.stop + 1, ESTIMATE_T.stop + 4)  # the extents
SCALE_MODES = ("free", "uniform", "fixed")
DISTORTION_LENGTHS = {
    "none": (0,),
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}


@dataclass(frozen=True)
class Camera:
    """Pinhole intrinsics, optional lens distortion, optional gravity and height.

    `distortion` is in OpenCV's order. `up_cam` is the direction opposite to gravity in the optical
    camera frame (normalised here); None when it is not known. `above_floor_m`: how high the camera's
    centre is above the floor it looks at, along `up_cam`; None when it is not known. Pixel centres are at
    integers.

    Raises ValueError naming the field for a size or focal length that is not positive, a value
    that is not finite, an unknown distortion model, a wrong number of coefficients, or a height
    without gravity.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    distortion_model: str = "none"
    up_cam: tuple[float, float, float] | None = None
    above_floor_m: float | None = None

    def __post_init__(self):
        for name in ("width", "height"):
            if int(getattr(self, name)) <= 0:
                raise ValueError(f"camera {name} must be positive, got {getattr(self, name)}")
        for name in ("fx", "fy", "cx", "cy"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"camera {name} must be finite, got {getattr(self, name)}")
        for name in ("fx", "fy"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"camera {name} must be positive, got {getattr(self, name)} "
                    "(an all-zero K means the camera is not calibrated)"
                )
        if self.distortion_model not in DISTORTION_LENGTHS:
            raise ValueError(
                f"camera distortion_model must be one of {sorted(DISTORTION_LENGTHS)}, "
                f"got {self.distortion_model!r}"
            )
        if len(self.distortion) not in DISTORTION_LENGTHS[self.distortion_model]:
            raise ValueError(
                f"camera distortion model {self.distortion_model} takes "
                f"{DISTORTION_LENGTHS[self.distortion_model]} coefficients, got {len(self.distortion)}"
            )
        if not all(math.isfinite(value) for value in self.distortion):
            raise ValueError(f"camera distortion must be finite, got {self.distortion}")
        if self.up_cam is not None:
            up = np.asarray(self.up_cam, dtype=np.float64)
            norm = np.linalg.norm(up)
            if up.shape != (3,) or not np.isfinite(norm) or norm < 1e-6:
                raise ValueError(f"camera up_cam must be a non-zero 3-vector, got {self.up_cam}")
            object.__setattr__(self, "up_cam", tuple(float(v) for v in up / norm))
        if self.above_floor_m is not None and not 0 < self.above_floor_m < math.inf:
            raise ValueError(f"camera above_floor_m must be positive metres, got {self.above_floor_m}")
        if self.above_floor_m is not None and self.up_cam is None:
            raise ValueError("camera above_floor_m needs up_cam as well")

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64 intrinsic matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True)
class BoxEstimate:
    """What a network expects of a detected object by itself, in the camera frame.

    azimuth: cos kθ and sin kθ for every k of `AZIMUTH_ORDERS`, θ the angle about the vertical from facing the
    camera to where the front looks. T_m (3,): its centre; distance_sigma_log: standard deviation of the
    logarithm of its distance. S_m (3,): extents along its axes; extents_sigma_log: of their logarithms.
    """

    azimuth: tuple[float, ...]
    T_m: tuple[float, float, float]
    distance_sigma_log: float
    S_m: tuple[float, float, float]
    extents_sigma_log: float

    def packed(self) -> tuple[float, ...]:
        """All of it as `ESTIMATE_NUMBERS` numbers in the order of the fields; all 0 stands for none."""
        return (*self.azimuth, *self.T_m, self.distance_sigma_log, *self.S_m, self.extents_sigma_log)


@dataclass(frozen=True, eq=False)
class Detection:
    """One detected object. `box_xyxy` in pixels; `mask` an optional (H, W) bool image.

    `track_id` is carried through untouched; `model_id` fixes the CAD model, otherwise the models of
    the category are tried as candidates. `estimate`: what a predictor makes of the object in the box.
    """

    box_xyxy: tuple[float, float, float, float]
    category: str
    score: float = 1.0
    model_id: str | None = None
    mask: np.ndarray | None = None
    track_id: int | None = None
    estimate: BoxEstimate | None = None


@dataclass(frozen=True, eq=False)
class PixelHints:
    """What a network says of every pixel of an image beside depth and normal; (H, W) float32.

    object_share: the probability that an object of one of the categories is seen, and no part of the room;
    depth_sigma_log: the standard deviation of the predicted depth's logarithm. 0 where nothing is known.
    """

    object_share: np.ndarray
    depth_sigma_log: np.ndarray

    def stacked(self) -> np.ndarray:
        """(H, W, `HINT_CHANNELS`) in the order of the fields."""
        return np.stack((self.object_share, self.depth_sigma_log), -1)

    @classmethod
    def unstacked(cls, channels: np.ndarray) -> PixelHints:
        """The inverse of `stacked`."""
        return cls(channels[..., 0], channels[..., 1])


@dataclass(frozen=True, eq=False)
class StartPose:
    """Where an object is believed to be: x_cam = R · diag(S_m) · x_cad + T_m in the camera frame.

    R (3, 3), T_m (3,), S_m (3,). It is refined with the CAD model `model_id` in place of a search;
    `search`: beside one, and the best σ wins.
    """

    model_id: str
    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    search: bool = False


@dataclass(frozen=True, eq=False)
class AlignedObject:
    """One CAD model placed in the camera frame: x_cam = R · diag(S_m) · x_cad + T_m.

    `detection` indexes the detections that went in; `score` is the network's σ in [0, 1], or the detection's
    score where σ judges starts; `start` names the start pose that won, e.g. "azimuth_90", or "track" for a
    given one.
    """

    detection: int
    category: str
    model_id: str
    box_xyxy: tuple[float, float, float, float]
    R: np.ndarray
    T_m: np.ndarray
    S_m: np.ndarray
    score: float
    start: str


@dataclass(frozen=True)
class SkippedDetection:
    """A detection that could not be aligned, and why (an expected failure is a value)."""

    detection: int
    reason: str


@dataclass(frozen=True, eq=False)
class AlignmentResult:
    """What `Aligner.align` returns: objects, skipped detections and milliseconds per stage."""

    camera: Camera
    objects: tuple[AlignedObject, ...] = ()
    skipped: tuple[SkippedDetection, ...] = ()
    timing_ms: dict[str, float] = field(default_factory=dict)
