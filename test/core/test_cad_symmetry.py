"""Symmetry about the vertical axis: turns, estimates of known shapes, agreement with procedural labels."""

import numpy as np
import pytest
import trimesh

from sparc_core.cad.library import build_model
from sparc_core.cad.procedural import generate
from sparc_core.cad.sampling import sample_surface
from sparc_core.cad.symmetry import estimate_symmetry, turn_angles_rad


def sampled(mesh, count=16384):
    centred = mesh.vertices - mesh.bounds.mean(0)
    return sample_surface(centred, mesh.faces, count, np.random.default_rng(0))[0]


def prism(sides, radius=0.5, height=1.0):
    """An upright prism with a regular polygon as its base, centred on the axis."""
    mesh = trimesh.creation.cylinder(radius, height, sections=sides)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    return mesh


def with_bump(mesh, size, centre):
    bump = trimesh.creation.box(size)
    bump.apply_translation(centre)
    return trimesh.util.concatenate([mesh, bump])


BOX, SQUARE = trimesh.creation.box((1.0, 0.7, 0.5)), trimesh.creation.box((0.6, 0.7, 0.6))
SIDES = with_bump(with_bump(SQUARE, (0.1, 0.5, 0.6), (-0.25, -0.5, 0)), (0.1, 0.5, 0.6), (0.25, -0.5, 0))
CHAIR = with_bump(trimesh.creation.box((0.45, 0.08, 0.45)), (0.45, 0.5, 0.05), (0, 0.25, -0.2))


@pytest.mark.parametrize(
    ("mesh", "symmetry"),
    [
        (BOX, "c2"),
        (SQUARE, "c4"),
        (trimesh.creation.box((0.6, 0.7, 0.67)), "c2"),
        (SIDES, "c2"),  # as wide as deep, but on two panels
        (prism(36), "cinf"),
        (prism(12), "cinf"),
        (prism(3), "none"),  # three turns: not one of the classes
        (CHAIR, "none"),
        (with_bump(BOX, (0.6, 0.1, 0.06), (0, 0.1, 0.25)), "none"),  # a drawer front
        (with_bump(BOX, (0.02, 0.02, 0.02), (0.3, 0.1, 0.25)), "c2"),  # a knob is too small to see
    ],
    ids=[
        "box",
        "square",
        "nearly square",
        "panels",
        "round",
        "12 sides",
        "triangle",
        "chair",
        "front",
        "knob",
    ],
)
def test_known_shapes(mesh, symmetry):
    assert estimate_symmetry(sampled(mesh)) == symmetry


def test_estimates_do_not_depend_on_size():
    for scale in (0.01, 100):
        assert estimate_symmetry(sampled(SQUARE) * scale) == "c4"
        assert estimate_symmetry(sampled(CHAIR) * scale) == "none"


def test_what_cannot_be_seen_does_not_count():
    """A closed box with a lot of one-sided structure inside is a box to every camera."""
    mesh = BOX
    for k in range(6):
        mesh = with_bump(mesh, (0.3, 0.04, 0.4), (0.25, -0.3 + 0.1 * k, 0))
    assert estimate_symmetry(sampled(mesh)) == "none"
    model = build_model(
        "b", "cabinet", mesh.vertices, mesh.faces, np.zeros((len(mesh.faces), 3), np.uint8), "test"
    )
    assert model.symmetry == "c2"


@pytest.mark.parametrize(("symmetry", "count"), [("none", 1), ("c2", 2), ("c4", 4), ("cinf", 36)])
def test_turns(symmetry, count):
    np.testing.assert_allclose(turn_angles_rad(symmetry), np.radians(np.arange(count) * 360 / count))


def test_unknown_symmetry():
    with pytest.raises(ValueError, match="symmetry must be one of .* got 'c3'"):
        turn_angles_rad("c3")


@pytest.mark.parametrize(
    "category", ["bin", "table", "bathtub", "chair", "bed", "display", "sofa", "bookshelf"]
)
def test_estimates_agree_with_how_furniture_was_built(category):
    """Not cabinets: some have handles too small for the estimate, and a front all the same."""
    for seed in range(5):
        made = generate(category, seed)
        model = build_model(f"{seed}", category, made.vertices, made.faces, made.face_colors, "test")
        assert model.symmetry == made.symmetry, seed
