"""Options of the tracker."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparc_core.tracking.smoothing import SmoothingConfig


@dataclass(frozen=True)
class TrackerConfig:
    """max_age_s: a track ends when unseen this long while it should be seen; max_hidden_s: while out of view
    or behind something. max_distance_m: poses further apart need `min_iou` of their boxes to be one object.
    reinit_score: a track whose confidence (σ over its last sightings) is below is also searched anew, at most
    every reinit_pause_s. smoothing: None publishes every pose as it was measured.

    Raises ValueError naming the field for a value outside its range.
    """

    max_age_s: float = 2.0
    max_hidden_s: float = 60.0
    max_distance_m: float = 0.5
    min_iou: float = 0.3
    reinit_score: float = 0.4
    reinit_pause_s: float = 0.2
    smoothing: SmoothingConfig | None = field(default_factory=SmoothingConfig)

    def __post_init__(self):
        for name in ("max_age_s", "max_hidden_s", "reinit_pause_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"tracker {name} must not be negative, got {getattr(self, name)}")
        if not self.max_distance_m > 0:
            raise ValueError(f"tracker max_distance_m must be positive, got {self.max_distance_m}")
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"tracker min_iou must be in (0, 1], got {self.min_iou}")
        if not 0 <= self.reinit_score <= 1:
            raise ValueError(f"tracker reinit_score must be in [0, 1], got {self.reinit_score}")
