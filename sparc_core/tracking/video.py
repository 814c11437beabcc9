"""Video mode: one image after the other through the aligner, each track's last pose as its only start.

`VideoAligner.align` is `Aligner.align` with a memory: tracks give start poses (before) and objects continue
tracks (after). A detection that no track explains is searched from four rotations in the same batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sparc_core.mapping.live_map import LiveMapConfig
from sparc_core.mapping.map_file import write_map
from sparc_core.pipeline import Aligner
from sparc_core.tracking.config import TrackerConfig
from sparc_core.tracking.map_mode import MapMode
from sparc_core.tracking.tracker import Tracker, TrackerUpdate
from sparc_core.types import AlignmentResult, Camera, Detection, PixelHints


@dataclass(frozen=True, eq=False)
class VideoResult:
    """result: as `Aligner.align` gives it, with the tracks' poses; track_ids: one for each of its objects;
    searched: detections that were searched; update: of the tracker; track_ms: milliseconds that it took."""

    result: AlignmentResult
    track_ids: tuple[int, ...]
    searched: tuple[int, ...]
    update: TrackerUpdate
    track_ms: float


class VideoAligner:
    """Aligns CAD models to the objects of a video, image by image (from one thread).

    config: of the tracker; it may be exchanged between images (`tracker.config`). search_always: no track
    gives a start pose, every image is searched anew; tracks then only give ids and smooth. live_map: map
    mode, which needs the camera's pose in the fixed frame.
    """

    def __init__(
        self,
        aligner: Aligner,
        config: TrackerConfig | None = None,
        *,
        search_always: bool = False,
        live_map: LiveMapConfig | None = None,
    ):
        self.aligner, self.search_always = aligner, search_always
        symmetries = {model.model_id: model.symmetry for model in aligner.cad_library.models}
        self.tracker = Tracker(config, symmetries)
        self.map_mode = None if live_map is None else MapMode(live_map, symmetries)

    def reset(self) -> int:
        """End every track, and forget the map; how many tracks there were."""
        if self.map_mode is not None:
            self.map_mode.clear()
        return len(self.tracker.reset())

    def write_map(self, path: Path, **facts) -> int:
        """Write the map so far (`mapping.map_file`), with what else should stand in its config; returns how
        many objects it holds. Raises ValueError without map mode, OSError for a path that cannot be written.
        """
        if self.map_mode is None:
            raise ValueError("there is no map: map mode is off")
        found = self.map_mode.objects
        config = {
            "live_map": asdict(self.map_mode.map.config),
            "aligner": asdict(self.aligner.config),
        } | facts
        write_map(path, tuple(found.values()), self.map_mode.images, config, tuple(found))
        return len(found)

    def align(
        self,
        image_rgb: np.ndarray,
        camera: Camera,
        detections: Sequence[Detection],
        stamp_s: float,
        depth_m: np.ndarray | None = None,
        normals_cam: np.ndarray | None = None,
        *,
        T_fixed_cam: np.ndarray | None = None,
        depth_predicted: bool = False,
        hints: PixelHints | None = None,
    ) -> VideoResult:
        """The objects of the next image. stamp_s: its time; one before the last ends every track.

        T_fixed_cam: (4, 4) camera to a frame that does not move, or None when it is not known: the camera is
        then taken not to have moved. Map mode refuses that (ValueError) until it has been known once; later
        it leaves such images out. Everything else, and the errors raised, as for `Aligner.align`.
        """
        if self.map_mode is not None and T_fixed_cam is None and not self.map_mode.images:
            raise ValueError("map mode needs T_fixed_cam, the camera's pose in a frame that does not move")
        began = time.perf_counter()
        starts = None
        if not self.search_always:
            starts = self.tracker.starts(detections, stamp_s, camera, T_fixed_cam, depth_m)
        started = time.perf_counter()
        if detections:
            result = self.aligner.align(
                image_rgb, camera, detections, depth_m, normals_cam,
                depth_predicted=depth_predicted, hints=hints, starts=starts,
            )  # fmt: skip
        else:
            result = AlignmentResult(camera)
        aligned = time.perf_counter()
        searched = tuple(
            i for i in range(len(detections)) if starts is None or starts[i] is None or starts[i].search
        )
        update = self.tracker.update(
            result.objects, stamp_s, camera, T_fixed_cam, depth_m, frozenset(searched)
        )
        if self.map_mode is not None and T_fixed_cam is not None:
            update = self.map_mode.update(
                self.tracker, result.objects, update, stamp_s, camera, T_fixed_cam, depth_m
            )
        track_ms = 1e3 * (started - began + time.perf_counter() - aligned)
        return VideoResult(
            replace(result, objects=update.objects), update.track_ids, searched, update, track_ms
        )
