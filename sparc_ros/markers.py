"""RViz markers of aligned objects: the CAD mesh in its pose and scale, and a label.

A marker keeps its namespace and id (the track id) while its track lives and is replaced by ADD; it is
deleted once, when the track has ended. Nothing is ever cleared in between, so nothing flickers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from visualization_msgs.msg import Marker, MarkerArray

from sparc_core.types import AlignedObject
from sparc_ros.conversions import fill_pose, fill_vector

MESH_NAMESPACE = "sparc/mesh"
LABEL_NAMESPACE = "sparc/label"
LABEL_HEIGHT_M = 0.1


def export_mesh_uris(library, folder: Path) -> dict[str, str]:
    """Write the library's unit-cube meshes below `folder`; returns the file:// URI of each model id.

    Each library has a folder of its own, named by its content: two libraries may use one id for two
    meshes, and files that exist are not written again.
    """
    digest = hashlib.sha256()
    for model in library.models:
        digest.update(model.model_id.encode() + b"\0")
        for values in (model.vertices, model.faces, model.face_colors):
            digest.update(np.ascontiguousarray(values).tobytes())
    files = library.export_meshes(Path(folder) / digest.hexdigest()[:12])
    return {model_id: Path(path).resolve().as_uri() for model_id, path in files.items()}


def score_colour(score: float) -> tuple[float, float, float]:
    """RGB in [0, 1]: red at 0, yellow at 0.5, green at 1."""
    score = min(max(float(score), 0.0), 1.0)
    return min(1.0, 2 - 2 * score), min(1.0, 2 * score), 0.1


class MarkerSet:
    """Builds the marker array of each image and remembers what RViz shows."""

    def __init__(self, mesh_uris: Mapping[str, str]):
        self._mesh_uris = dict(mesh_uris)
        self._shown: set[int] = set()
        self._started = False

    def update(
        self, header, objects: Sequence[AlignedObject], track_ids: Sequence[int], alive: Collection[int]
    ) -> MarkerArray:
        """Markers for the objects of one image; those of tracks no longer in `alive` are deleted."""
        array = MarkerArray()
        if not self._started:
            # An earlier run of the node may have left markers in RViz, under ids that mean nothing now.
            array.markers.append(Marker(header=header, action=Marker.DELETEALL))
            self._started = True
        for track_id in sorted(self._shown - set(alive)):
            array.markers += _deletions(header, track_id)
            self._shown.discard(track_id)
        for obj, track_id in zip(objects, track_ids, strict=True):
            array.markers.append(self._mesh(header, obj, track_id))
            array.markers.append(_label(header, obj, track_id))
            self._shown.add(track_id)
        return array

    def clear(self, header) -> MarkerArray:
        """Delete everything that is shown."""
        return self.update(header, (), (), ())

    def _mesh(self, header, obj: AlignedObject, track_id: int) -> Marker:
        marker = Marker(header=header, ns=MESH_NAMESPACE, id=int(track_id), action=Marker.ADD)
        marker.type = Marker.MESH_RESOURCE
        marker.mesh_resource = self._mesh_uris[obj.model_id]
        marker.mesh_use_embedded_materials = False
        fill_pose(marker.pose, obj.R, obj.T_m)
        fill_vector(marker.scale, obj.S_m)
        _paint(marker, score_colour(obj.score), alpha=0.8)
        return marker


def _label(header, obj: AlignedObject, track_id: int) -> Marker:
    marker = Marker(header=header, ns=LABEL_NAMESPACE, id=int(track_id), action=Marker.ADD)
    marker.type = Marker.TEXT_VIEW_FACING
    marker.text = f"{obj.category} {track_id}  {obj.score:.2f}"
    # A little above the middle of the CAD model's top.
    above = np.array([0.0, obj.S_m[1] / 2 + LABEL_HEIGHT_M, 0.0])
    fill_pose(marker.pose, np.eye(3), obj.R @ above + obj.T_m)
    marker.scale.z = LABEL_HEIGHT_M
    _paint(marker, (1.0, 1.0, 1.0), alpha=1.0)
    return marker


def _deletions(header, track_id: int) -> list[Marker]:
    return [
        Marker(header=header, ns=namespace, id=int(track_id), action=Marker.DELETE)
        for namespace in (MESH_NAMESPACE, LABEL_NAMESPACE)
    ]


def _paint(marker: Marker, rgb: tuple[float, float, float], alpha: float) -> None:
    marker.color.r, marker.color.g, marker.color.b = rgb
    marker.color.a = alpha
