"""Small grey pictures of CAD models from given directions, by orthographic rays with Warp.

What Mask2CAD embeds in the place of a CAD model: shape and shading, no colours, no room. A picture is
framed by the model's outline, as a detector's box is.
"""

from __future__ import annotations

import numpy as np
import torch
import warp as wp

from sparc_core.cad.library import CadLibrary

MARGIN = 1.06  # of the outline, which is known from surface points alone
DARKEST = 55  # of a surface seen edge-on; 0 is nothing


@wp.kernel
def _shade(
    mesh_ids: wp.array(dtype=wp.uint64),
    model: wp.array(dtype=wp.int32),
    R: wp.array(dtype=wp.mat33),
    size_m: wp.array(dtype=wp.vec3),
    corner: wp.array(dtype=wp.vec3),
    step: wp.array(dtype=wp.float32),
    reach: wp.array(dtype=wp.float32),
    darkest: wp.float32,
    grey: wp.array3d(dtype=wp.uint8),
):
    v, row, column = wp.tid()
    start = wp.vec3(
        corner[v][0] + step[v] * (wp.float32(column) + 0.5),
        corner[v][1] + step[v] * (wp.float32(row) + 0.5),
        -reach[v],
    )
    to_object = wp.transpose(R[v])
    origin = wp.cw_div(to_object * start, size_m[v])
    direction = wp.normalize(wp.cw_div(to_object * wp.vec3(0.0, 0.0, 1.0), size_m[v]))
    hit = wp.mesh_query_ray(mesh_ids[model[v]], origin, direction, 1.0e6)
    if hit.result:
        normal = wp.normalize(R[v] * wp.cw_div(hit.normal, size_m[v]))
        light = wp.abs(normal[2])
        grey[v, row, column] = wp.uint8(darkest + (255.0 - darkest) * light)


class ViewRenderer:
    """Takes pictures of the models of one library, on the CPU: the same ones on every machine."""

    def __init__(self, library: CadLibrary):
        if not library.models:
            raise ValueError("the CAD library holds no models")
        wp.config.quiet = True
        wp.init()
        self._meshes = [
            wp.Mesh(
                wp.array(model.vertices, dtype=wp.vec3, device="cpu"),
                wp.array(model.faces.ravel(), dtype=wp.int32, device="cpu"),
            )
            for model in library.models
        ]
        self._ids = wp.array([int(mesh.id) for mesh in self._meshes], dtype=wp.uint64, device="cpu")
        self._extents_m = np.stack([model.extents_m for model in library.models]).astype(np.float32)
        self._points = [model.points for model in library.models]

    def render(self, model: torch.Tensor, R: torch.Tensor, size_px: int) -> torch.Tensor:
        """(V, size_px, size_px) uint8 of models (V,) at their true extents, turned by R (V, 3, 3) from the
        CAD frame into a frame with x right, y down and z away from the viewer.

        0 where nothing is, else brighter the more the surface faces the viewer. The outline fills the
        picture's longer side and stands in its middle. Raises ValueError for numbers that name no model and
        a size below 2.
        """
        if size_px < 2:
            raise ValueError(f"size_px must be at least 2, got {size_px}")
        numbers = model.cpu().numpy()
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= len(self._points)):
            raise ValueError(
                f"model numbers must be in [0, {len(self._points)}), got {numbers.min()} to {numbers.max()}"
            )
        turns = np.ascontiguousarray(R.cpu().numpy(), dtype=np.float32)
        extents = self._extents_m[numbers]
        corner, step = self._frame(numbers, turns, size_px)
        grey = torch.zeros(len(numbers), size_px, size_px, dtype=torch.uint8)
        reach = np.linalg.norm(extents, axis=-1).astype(np.float32)
        wp.launch(
            _shade,
            dim=tuple(grey.shape),
            inputs=[
                self._ids,
                wp.array(numbers.astype(np.int32), dtype=wp.int32, device="cpu"),
                wp.array(turns, dtype=wp.mat33, device="cpu"),
                wp.array(extents, dtype=wp.vec3, device="cpu"),
                wp.array(corner, dtype=wp.vec3, device="cpu"),
                wp.array(step, dtype=wp.float32, device="cpu"),
                wp.array(reach, dtype=wp.float32, device="cpu"),
                float(DARKEST),
                wp.from_torch(grey, dtype=wp.uint8),
            ],
            device="cpu",
        )
        return grey

    def _frame(self, numbers: np.ndarray, turns: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
        """Upper left corners (V, 3) of square frames in metres, and the metres of a pixel (V,)."""
        corner = np.zeros((len(numbers), 3), dtype=np.float32)
        step = np.zeros(len(numbers), dtype=np.float32)
        for v, (number, R) in enumerate(zip(numbers, turns, strict=True)):
            flat = (self._points[number] * self._extents_m[number]) @ R[:2].T
            low, high = flat.min(0), flat.max(0)
            side = MARGIN * float((high - low).max())
            corner[v, :2] = (low + high - side) / 2
            step[v] = side / size_px
        return corner, step
