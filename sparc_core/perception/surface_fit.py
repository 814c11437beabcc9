"""Predicted depth is made to agree with predicted normals (after Bae et al., IronDepth, BMVC 2022).

A normal says how depth goes on from a pixel to the next one on the same surface, and a network tells normals
better than depth, which it gets right on average and lets waver from place to place. So the logarithm of the
depth is found anew: near what was predicted, within its σ, and from neighbour to neighbour as the normals say
it; at edges, where depth and normals contradict each other, depth jumps. The scale of the whole remains what
the network took it for.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import spsolve

STEP_SIGMA = 0.0024  # of the logarithm of depth between neighbours whose normals have the concentration KAPPA
KAPPA = 20.0
EDGE = 0.015  # contradiction in the logarithm of depth at which neighbours begin to be two surfaces
SOLUTIONS = 2  # edges are found anew from the first one
LEAST_COSINE = 0.03  # between a normal and its ray
LEVEL, PLUMB = 0.93, 0.2  # cosines to the vertical: more, a floor or ceiling; less, a wall


def fit_to_normals(
    log_depth: np.ndarray, log_sigma: np.ndarray, normals: np.ndarray, kappa: np.ndarray, rays: np.ndarray
) -> np.ndarray:
    """(H, W) logarithm of depth that agrees with the normals.

    log_depth, log_sigma (H, W): mean of the logarithm of depth and logarithm of its standard deviation;
    normals (H, W, 3) unit, camera frame; kappa (H, W): their concentration; rays (H, W, 3) with z = 1.
    """
    number = np.arange(log_depth.size).reshape(log_depth.shape)
    neighbours = ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:]))
    ends = np.concatenate([np.stack((number[a].ravel(), number[b].ravel())) for a, b in neighbours], 1)
    step, weight = np.concatenate([_steps(normals, kappa, rays, a, b) for a, b in neighbours], 1)
    pairs = np.arange(len(step))
    difference = scipy.sparse.csr_matrix(
        (np.repeat((-1.0, 1.0), len(step)), (np.tile(pairs, 2), ends.ravel())), (len(step), number.size)
    )
    told = log_depth.ravel().astype(np.float64)
    belief = np.exp(-2 * log_sigma.ravel().astype(np.float64))
    found = told
    for _ in range(SOLUTIONS):
        contradiction = (difference @ found - step) / EDGE
        bond = weight / (1 + contradiction**2) ** 2  # Geman-McClure
        system = difference.T @ scipy.sparse.diags(bond) @ difference + scipy.sparse.diags(belief)
        found = spsolve(
            system.tocsc(), difference.T @ (bond * step) + belief * told, permc_spec="MMD_AT_PLUS_A"
        )
    return found.reshape(log_depth.shape).astype(log_depth.dtype)


def upright_room(normals: np.ndarray, on_object: np.ndarray, up_cam: np.ndarray) -> np.ndarray:
    """(H, W, 3) normals, with those of the room made level or plumb where they nearly are.

    normals (H, W, 3) unit; on_object (H, W) bool: where something stands before the room; up_cam (3,) unit:
    against gravity.
    """
    cosine = normals @ up_cam
    level, plumb = ~on_object & (np.abs(cosine) > LEVEL), ~on_object & (np.abs(cosine) < PLUMB)
    upright = normals.copy()
    upright[level] = np.sign(cosine[level])[:, None] * up_cam
    flat = normals[plumb] - cosine[plumb, None] * up_cam
    upright[plumb] = flat / np.linalg.norm(flat, axis=-1, keepdims=True)
    return upright


def _steps(normals, kappa, rays, a, b) -> np.ndarray:
    """(2, K): by how much the logarithm of depth rises from pixels `a` to neighbours `b` on a plane, the
    mean for the normals of both; and how much that weighs."""
    length_a, length_b = (np.linalg.norm(rays[place], axis=-1) for place in (a, b))

    def rise(normal):
        # n · (depth · ray) is the same for all points of a plane
        cosine_a, cosine_b = (
            np.maximum(-(normal * rays[place]).sum(-1) / length, LEAST_COSINE)
            for place, length in ((a, length_a), (b, length_b))
        )
        return np.log(cosine_a * length_a / (cosine_b * length_b))

    step = (rise(normals[a]) + rise(normals[b])) / 2
    certainty = np.minimum(kappa[a], kappa[b]) / KAPPA / STEP_SIGMA**2
    return np.stack((step.ravel(), certainty.ravel())).astype(np.float64)
