"""The align node's parameter list: described, in range, and errors that name the parameter."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from sparc_ros.parameter_list import resolve_changes
from sparc_ros.parameters import NodeParameters, parse_class_map, parse_scale_modes

ROOT = Path(__file__).parents[2]
FIELDS = dataclasses.fields(NodeParameters)


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.name)
def test_every_parameter_is_described_and_numbers_have_ranges(item):
    assert len(item.metadata["description"]) > 15
    if isinstance(item.default, (int, float)) and not isinstance(item.default, bool):
        assert item.metadata["minimum"] <= item.default <= item.metadata["maximum"]
    if item.metadata["choices"]:
        assert item.default in item.metadata["choices"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "tpu"),
        ("scale_mode", "huge"),
        ("image_transport", "theora"),
        ("sync", "loose"),
        ("up_source", "guess"),
        ("detections_source", "mind"),
        ("max_candidates", 0),
        ("max_detections", 100000),
        ("min_score", 1.5),
        ("sync_slop_s", 0.0),
        ("depth_unit_m", 0.0),
        ("stale_input_s", float("nan")),
        ("categories", ("chair", "giraffe")),
        ("class_map", ("56",)),
        ("class_map", ("56=giraffe",)),
        ("scale_modes", ("chair",)),
        ("scale_modes", ("chair=loose",)),
        ("fixed_frame", ""),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"parameter {name}: "):
        NodeParameters(**{name: value})


def test_detections_from_a_file_need_the_file():
    with pytest.raises(ValueError, match="parameter detections_file"):
        NodeParameters(detections_source="file")
    NodeParameters(detections_source="file", detections_file="dets.json")


def test_no_fixed_frame_is_fine_without_tf():
    assert NodeParameters(fixed_frame="", up_source="none").fixed_frame == ""


def test_class_map():
    assert parse_class_map(("", "56=chair", "tv stand=cabinet")) == {"56": "chair", "tv stand": "cabinet"}


def test_changes_at_run_time():
    changed = resolve_changes(NodeParameters(), {"min_score": 0.5, "categories": ["chair"]})
    assert changed.min_score == 0.5 and changed.categories == ("chair",)
    with pytest.raises(ValueError, match="parameter weights: is read only"):
        resolve_changes(NodeParameters(), {"weights": "other"})
    with pytest.raises(ValueError, match="parameter min_score"):
        resolve_changes(NodeParameters(), {"min_score": 2.0})


def test_threads_leave_cores_for_others(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(9)))
    assert NodeParameters().thread_count == 4
    assert NodeParameters(threads=7).thread_count == 7
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert NodeParameters().thread_count == 1


def test_meshes_go_to_the_users_cache_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert NodeParameters().mesh_path == tmp_path / "sparc_ros" / "meshes"
    assert NodeParameters(mesh_folder="/somewhere").mesh_path.as_posix() == "/somewhere"


def test_scale_modes_of_categories_and_models():
    assert parse_scale_modes(("", "chair=fixed", "my=desk=uniform")) == (
        ("chair", "fixed"),
        ("my=desk", "uniform"),
    )


def test_the_readme_lists_every_parameter_as_it_is():
    tool = runpy.run_path(str(ROOT / "tools" / "parameter_table.py"))
    text = (ROOT / "README.md").read_text()
    assert tool["with_table"](text) == text, "run ./run python tools/parameter_table.py"
    changed = text.replace("| `threads` | int | `0` |", "| `threads` | int | `7` |")
    assert changed != text and tool["with_table"](changed) == text
    with pytest.raises(ValueError, match="has no table of parameters"):
        tool["with_table"]("nothing")
