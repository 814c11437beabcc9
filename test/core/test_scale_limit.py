"""What can be known of a room's scale: by hand, and against rooms that are drawn at random."""

from types import SimpleNamespace

import numpy as np
import pytest
from builders import furniture

from sparc_core.evaluation.scale_limit import KnownSizes, scale_errors, scale_limits
from sparc_core.synth.scenes import SceneConfig

LAYOUT = SceneConfig(scale_jitter=0.15, axis_jitter=0.08)


@pytest.fixture(scope="module")
def library():
    return furniture()


def record(model, factors, image=0, distance=2.0, detected=True):
    truth = {"model_id": model.model_id, "S_m": (np.array(model.extents_m) * factors).tolist()}
    return {
        "image": image, "category": model.category, "detected": detected, "distance_m": distance,
        "truth": truth,
    }  # fmt: skip


def test_a_known_model_larger_than_usual_makes_its_room_too_small(library):
    model = library.models[0]
    exact, larger = record(model, 1.0), record(model, 1.1, image=1)
    errors = scale_errors([exact, larger], KnownSizes(library, LAYOUT), model_known=True)
    np.testing.assert_allclose(errors, [0.0, -np.log(1.1)], atol=1e-6)


def test_more_objects_tell_the_scale_as_much_better_as_drawn_rooms_say(library):
    random = np.random.default_rng(0)
    sizes = KnownSizes(library, LAYOUT)

    def spread(count):
        rooms = []
        for image in range(800):
            for _ in range(count):
                factors = random.uniform(0.85, 1.15) * random.uniform(0.92, 1.08, 3)
                rooms.append(record(library.models[random.integers(len(library))], factors, image))
        return scale_errors(rooms, sizes, model_known=True)[::count].std()

    # of one object: its overall factor and the mean of three axes' factors
    one = np.sqrt(0.15**2 / 3 + 0.08**2 / 9)
    assert spread(1) == pytest.approx(one, rel=0.08)
    assert spread(4) == pytest.approx(one / 2, rel=0.08)


def test_objects_count_as_much_as_the_sizes_of_their_category_agree():
    """Chairs of two sizes, 0.3 from their mean (logarithm), and a bed of which there is but one."""
    extents = {"chair_0": 0.3, "chair_1": -0.3, "bed_0": 0.0}
    models = [
        SimpleNamespace(model_id=name, category=name.split("_")[0], extents_m=np.full(3, np.exp(value)))
        for name, value in extents.items()
    ]
    library = SimpleNamespace(
        models=models, categories=("chair", "bed"),
        indices_of_category=lambda c: [i for i, m in enumerate(models) if m.category == c],
    )  # fmt: skip
    chair, bed = SimpleNamespace(**vars(models[0])), models[2]
    chair.extents_m = np.ones(3)
    rooms = [record(chair, np.exp(0.2)), record(bed, np.exp(-0.05))]
    found = scale_errors(rooms, KnownSizes(library, LAYOUT), model_known=False)
    whole, axis = 0.15**2 / 3, 0.08**2 / 3
    of_chair, of_bed = (3 / (axis + 3 * (spread + whole)) for spread in (0.18, 0.0))
    np.testing.assert_allclose(found, -(0.2 * of_chair - 0.05 * of_bed) / (of_chair + of_bed))


def test_limits_are_of_all_and_of_the_detected_objects(library):
    model = library.models[0]
    near = record(model, 1.05, distance=2.0)
    far = record(model, 1.05, image=1, distance=6.0, detected=False)
    limits = {(x["of"], x["known"]): x for x in scale_limits([near, far], library, LAYOUT)}
    assert limits["all", "models"] == {
        "of": "all", "known": "models", "objects": 2, "scale_off": 4.8, "placed": 50.0,
    }  # fmt: skip
    assert limits["detected", "models"]["placed"] == 100.0
    assert set(limits) == {(a, b) for a in ("all", "detected") for b in ("categories", "models")}
    assert scale_limits([], library, LAYOUT) == []
