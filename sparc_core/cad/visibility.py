"""Which side of a surface point can be seen from outside the model: rays that get away, with Warp.

Meshes from the wild have faces wound inwards and bodies inside bodies. Neither can be told from a
point alone; whether rays from it leave the model can.
"""

from __future__ import annotations

import numpy as np
import warp as wp

DIRECTIONS = 20
ENOUGH = 5  # open directions after which a point's case is clear
_GRAZING = 0.1  # cosine below which a ray along the surface tells nothing
_LIFT = 1e-4  # of the diagonal: how far rays start from the surface


@wp.kernel
def _count_open(
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    lift: float,
    reach: float,
    grazing: float,
    enough: int,
    open_ahead: wp.array(dtype=wp.int32),
    open_behind: wp.array(dtype=wp.int32),
):
    i = wp.tid()
    ahead = int(0)  # noqa: UP018 (a literal would be a constant to Warp, not a variable)
    behind = int(0)  # noqa: UP018
    for k in range(directions.shape[0]):
        side = wp.dot(directions[k], normals[i])
        if ahead + behind < enough and wp.abs(side) > grazing:
            start = points[i] + normals[i] * (wp.sign(side) * lift)
            hit = wp.mesh_query_ray(mesh, start, directions[k], reach)
            if not hit.result:
                if side > 0.0:
                    ahead += 1
                else:
                    behind += 1
    open_ahead[i] = ahead
    open_behind[i] = behind


def open_directions(
    vertices_m: np.ndarray, faces: np.ndarray, points_m: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many of the directions tried lead from each point out of the model.

    points_m, normals (P, 3) on the surface. `DIRECTIONS` even directions are tried, until `ENOUGH` of
    them are open. Returns two (P,) int32 counts: open directions on the side of the normal, and on the
    other side. Both are 0 for a point that cannot be seen from outside.
    """
    wp.config.quiet = True
    wp.init()
    device = "cpu"  # the same samples on every machine
    diagonal = float(np.linalg.norm(np.ptp(vertices_m, axis=0)))
    mesh = wp.Mesh(
        wp.array(np.ascontiguousarray(vertices_m, dtype=np.float32), dtype=wp.vec3, device=device),
        wp.array(np.ascontiguousarray(faces, dtype=np.int32).ravel(), dtype=wp.int32, device=device),
    )
    ahead, behind = (wp.zeros(len(points_m), dtype=wp.int32, device=device) for _ in range(2))
    inputs = [
        wp.array(np.ascontiguousarray(values, dtype=np.float32), dtype=wp.vec3, device=device)
        for values in (points_m, normals, _even_directions(DIRECTIONS))
    ]
    wp.launch(
        _count_open,
        dim=len(points_m),
        inputs=[mesh.id, *inputs, _LIFT * diagonal, 2 * diagonal, _GRAZING, ENOUGH, ahead, behind],
        device=device,
    )
    return ahead.numpy(), behind.numpy()


def _even_directions(count: int) -> np.ndarray:
    """(count, 3) unit vectors spread evenly over the sphere, none along an axis, in mixed order."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = index * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    spiral = np.stack([radius * np.cos(angle), z, radius * np.sin(angle)], -1)
    # The spiral runs from top to bottom; the first few directions must already look everywhere.
    return spiral[np.arange(count) * 7 % count]
