"""Procedural furniture: closed bodies, true sizes, fronts, determinism, and the parts it is made of."""

import math

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from sparc_core.cad import procedural
from sparc_core.cad.procedural import parts
from sparc_core.cad.procedural.display import SCREEN
from sparc_core.cad.procedural.office_chair import build_office
from sparc_core.cad.sampling import sample_surface
from sparc_core.cad.symmetry import turn_angles_rad
from sparc_core.types import CATEGORIES, SYMMETRIES

SEEDS = range(1000, 1016)
COLOR = (1, 2, 3)
# smallest and largest extents in metres that furniture on sale has, x (width), y (height), z (depth)
SIZES_M = {
    "bathtub": ((1.2, 0.4, 0.6), (2.0, 1.0, 1.0)),
    "bed": ((0.8, 0.4, 1.8), (2.2, 1.9, 2.4)),
    "bin": ((0.15, 0.2, 0.1), (0.5, 1.0, 0.6)),
    "bookshelf": ((0.35, 0.5, 0.2), (2.0, 2.3, 0.5)),
    "cabinet": ((0.3, 0.35, 0.28), (2.4, 2.4, 0.8)),
    "chair": ((0.3, 0.65, 0.35), (1.1, 1.45, 1.0)),
    "display": ((0.3, 0.2, 0.03), (1.7, 1.1, 0.6)),
    "sofa": ((1.1, 0.6, 0.7), (3.7, 1.1, 2.0)),
    "table": ((0.4, 0.25, 0.3), (2.5, 1.4, 1.5)),
}


@pytest.fixture(scope="module", params=CATEGORIES)
def family(request):
    return request.param, [procedural.generate(request.param, seed) for seed in SEEDS]


def test_every_model_is_a_pile_of_closed_bodies(family):
    for made in family[1]:
        mesh = made.mesh
        assert mesh.is_watertight and mesh.is_winding_consistent, made.seed
        assert 20 < len(mesh.faces) <= 20_000
        for body in mesh.split(only_watertight=False):
            assert body.volume > 0, made.seed  # wound outwards
        assert made.face_colors.shape == mesh.faces.shape and made.face_colors.dtype == np.uint8
    colors = np.concatenate([made.face_colors for made in family[1]])
    assert len(np.unique(colors, axis=0)) >= len(SEEDS) // 2


def test_sizes_are_those_of_furniture_standing_on_the_floor(family):
    category, models = family
    low, high = SIZES_M[category]
    sizes = np.array([np.ptp(made.vertices, axis=0) for made in models])
    assert (sizes >= low).all() and (sizes <= high).all(), (sizes.min(0), sizes.max(0))
    assert (sizes.std(0) > 0.02 * sizes.mean(0)).all()  # variants, not copies
    for made in models:
        assert made.vertices[:, 1].min() == pytest.approx(0)
        centre = (made.vertices.min(0) + made.vertices.max(0)) / 2
        np.testing.assert_allclose(centre[[0, 2]], 0, atol=1e-9)
        assert made.symmetry in SYMMETRIES


def test_labelled_symmetries_hold(family):
    """Turned corners of the mesh must come to lie on its surface (taps and panels of bathtubs aside)."""
    category, models = family
    for made in models:
        if made.symmetry == "none" or category == "bathtub":
            continue
        surface = sample_surface(made.vertices, made.faces, 30_000, np.random.default_rng(0))[0]
        tree, diagonal = cKDTree(surface), np.linalg.norm(np.ptp(made.vertices, axis=0))
        for angle in turn_angles_rad(made.symmetry)[1:3]:
            c, s = math.cos(angle), math.sin(angle)
            turned = made.vertices @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
            assert tree.query(turned)[0].max() < 0.02 * diagonal, (made.seed, math.degrees(angle))


def test_the_same_seed_gives_the_same_model(family):
    category, models = family
    again = procedural.generate(category, models[3].seed)
    np.testing.assert_array_equal(again.vertices, models[3].vertices)
    np.testing.assert_array_equal(again.faces, models[3].faces)
    np.testing.assert_array_equal(again.face_colors, models[3].face_colors)
    assert not np.array_equal(again.vertices[:8], models[4].vertices[:8])


def surface_of(made):
    return sample_surface(made.vertices, made.faces, 4000, np.random.default_rng(0))[:2]


@pytest.mark.parametrize("category", ["chair", "sofa", "bed"])
def test_backs_and_headboards_are_behind(category):
    for seed in SEEDS:
        made = procedural.generate(category, seed)
        points, _ = surface_of(made)
        if category == "bed" and np.ptp(points[:, 1]) > 1.4:
            continue  # a bunk bed: its ladder is at the foot end
        top = points[points[:, 1] > 0.9 * points[:, 1].max()]
        assert (top[:, 2] < 0).all(), seed


def test_screens_face_forward():
    for seed in SEEDS:
        made = procedural.generate("display", seed)
        screen = (made.face_colors == SCREEN).all(1)
        corners = made.vertices[made.faces[screen]]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        front = normal[:, 2] > 0.9 * np.linalg.norm(normal, axis=1)
        assert front.any()
        # rays from far in front reach the screen before the housing
        centre = corners[front].mean((0, 1))
        everything = made.vertices[made.faces]
        covers = (everything[..., :2].min(1) < centre[:2]).all(1) & (
            everything[..., :2].max(1) > centre[:2]
        ).all(1)
        assert everything[covers][..., 2].max() <= corners[front][..., 2].max() + 0.01


def test_cabinets_and_bookshelves_open_to_the_front():
    for seed in SEEDS:
        shelf = procedural.generate("bookshelf", seed)
        points, normals = surface_of(shelf)
        half = np.ptp(shelf.vertices[:, 2]) / 2
        flat = np.abs(normals[:, 2]) > 0.99
        # panels, braces and boards close more of the rear than of the front
        behind = (flat & (points[:, 2] < -0.8 * half)).sum()
        assert behind > (flat & (points[:, 2] > 0.9 * half)).sum() * 0.8, seed
        cabinet = procedural.generate("cabinet", seed)
        size = np.ptp(cabinet.vertices, axis=0)
        bodies = [body.bounds.mean(0) for body in cabinet.mesh.split(only_watertight=False)]
        above_legs = np.array([centre for centre in bodies if centre[1] > 0.25 * size[1]])
        # doors, drawers and handles in front, the one panel behind
        assert (above_legs[:, 2] > 0.4 * size[2]).sum() > (above_legs[:, 2] < -0.4 * size[2]).sum(), seed


def test_office_chairs_stand_on_stars_and_are_common():
    chairs = [procedural.generate("chair", seed) for seed in range(60)]
    # castors are the only dark (28, 28, 30) parts of chairs
    office = [made for made in chairs if (made.face_colors == (28, 28, 30)).all(1).any()]
    assert 12 <= len(office) <= 32
    for seed in range(8):
        made = parts_mesh(build_office(np.random.default_rng(seed)))
        low = made.vertices[made.vertices[:, 1] < 0.03]
        assert 0.24 < np.hypot(low[:, 0], low[:, 2]).max() < 0.4
        middle = made.vertices[np.abs(made.vertices[:, 1] - 0.3) < 0.03]
        assert len(middle) == 0 or np.hypot(middle[:, 0], middle[:, 2]).max() < 0.35  # a column, no legs


def test_unknown_categories_and_seeds():
    with pytest.raises(ValueError, match="category must be one of .* got 'lamp'"):
        procedural.generate("lamp", 0)
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        procedural.generate("bin", -1)


def parts_mesh(pieces):
    meshes = [trimesh.Trimesh(p.vertices, p.faces, process=False) for p in pieces]
    return trimesh.util.concatenate(meshes)


def check_closed(part):
    mesh = trimesh.Trimesh(part.vertices, part.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    return mesh


def test_boxes_and_slabs_have_the_size_asked_for():
    low, high = (-1, 0, 2), (1, 0.5, 3)
    assert check_closed(parts.box(low, high, COLOR)).volume == pytest.approx(1.0)
    for axis in "xyz":
        mesh = check_closed(parts.slab(low, high, COLOR, radius=0.1, bevel=0.05, axis=axis))
        np.testing.assert_allclose(mesh.bounds, [low, high], atol=1e-9)
        assert 0.9 < mesh.volume < 1.0
    with pytest.raises(ValueError, match="high must exceed low"):
        parts.box((0, 0, 0), (1, 0, 1), COLOR)


def test_a_lathe_turns_a_cylinder():
    mesh = check_closed(parts.lathe([(0.5, 0), (0.5, 2)], COLOR))
    polygon = 36 / 2 * math.sin(2 * math.pi / 36) * 0.5**2
    assert mesh.volume == pytest.approx(2 * polygon)


def test_a_vessel_is_hollow():
    rings = [parts.raised(parts.ellipse(d, d), y) for d, y in ((1, 0), (1, 1), (0.8, 1), (0.8, 0.1))]
    volume = check_closed(parts.loft(np.stack(rings), COLOR)).volume
    share = 36 / 2 * math.sin(2 * math.pi / 36)
    assert volume == pytest.approx(share * (0.25 * 1.0 - 0.16 * 0.9))


@pytest.mark.parametrize(
    "path",
    [
        [(0, 0, 0), (0, 1, 0)],
        [(1, 1, -1), (1, 0, -1), (1, 0, 1), (1, 1, 1)],
        [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)],
    ],
)
def test_tubes_keep_their_thickness_round_corners(path):
    mesh = check_closed(parts.tube(path, 0.05, COLOR, segments=24))
    length = np.linalg.norm(np.diff(np.array(path, float), axis=0), axis=1).sum()
    # a mitred tube's volume is that of its straight pieces
    section = 24 / 2 * math.sin(2 * math.pi / 24) * 0.05**2
    assert mesh.volume == pytest.approx(section * length, rel=1e-6)


def test_panels_are_closed():
    mesh = check_closed(parts.curved_panel(0.5, 0.6, 0.03, COLOR, wrap=0.05, bulge=0.02, taper=0.2))
    assert 0.5 * 0.6 * 0.03 * 0.7 < mesh.volume < 0.5 * 0.6 * 0.03


def test_turns_tilts_and_mirrors():
    part = parts.box((0, 0, 0), (1, 2, 3), COLOR)
    turned = part.turned_y(math.pi / 2).vertices
    np.testing.assert_allclose([turned.min(0), turned.max(0)], [[0, 0, -1], [3, 2, 0]], atol=1e-9)
    leaning = part.tilted_x(0.3, (0, 0, 0)).vertices
    assert leaning[part.vertices[:, 1] == 2, 2].mean() > 1.5 + 0.4
    mirrored = part.mirrored_x()
    assert check_closed(mirrored).volume == pytest.approx(6)
    assert mirrored.vertices[:, 0].max() == 0
