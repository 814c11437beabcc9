"""Scan2CAD's result files: written as published, read back, foreign and malformed ones."""

import math

import numpy as np
import pytest
from scan2cad_objects import (
    TABLE,
    annotated,
    predicted,
    score,
)

from sparc_core.evaluation.scan2cad.csv_file import COLUMNS, read_csv, write_csv
from sparc_core.evaluation.scan2cad.errors import rotation_error_deg


def test_a_csv_is_written_as_published_and_read_back(tmp_path):
    made = [predicted((1, 2, 3), 30, (1, 2, 3), 0.25), predicted(synset=TABLE, scene="b")]
    write_csv(tmp_path / "r.csv", made)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert (
        lines[0].split(",")
        == list(COLUMNS)
        == ("id_scan objectCategory alignedModelId tx ty tz qw qx qy qz sx sy sz object_score".split())
    )
    assert lines[1].startswith("a,03001627,plain,1.0,2.0,3.0,")
    found, left_out = read_csv(tmp_path / "r.csv")
    assert left_out == 0
    for a, b in zip(made, found, strict=True):
        assert (a.scene, a.key, a.category, a.score) == (b.scene, b.key, b.category, b.score)
        assert (
            a.pose.R == pytest.approx(b.pose.R)
            and (a.pose.t == b.pose.t).all()
            and (a.pose.s == b.pose.s).all()
        )


HEADER = ",".join(COLUMNS)


def test_a_quaternion_of_another_length_is_no_free_pass(tmp_path):
    """|dot| beyond 1 was an error of 0° in published evaluators: here a quarter turn stays one."""
    half = 2 * math.sqrt(0.5)
    (tmp_path / "r.csv").write_text(f"{HEADER}\na,03001627,plain,0,0,0,{half},0,{half},0,1,1,1,0.5\n")
    found, _ = read_csv(tmp_path / "r.csv")
    assert rotation_error_deg(found[0].pose.R, np.eye(3), "none") == pytest.approx(90)
    assert score(found, {"a": [annotated()]}).instance == 0


def test_foreign_csvs_have_more_columns_lost_zeros_and_other_categories(tmp_path):
    (tmp_path / "r.csv").write_text(
        "image," + HEADER + ",detection\n"
        "x.jpg,a,2808440,tub,0,0,0,1,0,0,0,1,1,1,0.5,7\n"
        "x.jpg,a,03636649,lamp,0,0,0,1,0,0,0,1,1,1,0.5,8\n"
    )
    found, left_out = read_csv(tmp_path / "r.csv")
    assert [(p.synset, p.category) for p in found] == [("02808440", "bathtub")]
    assert left_out == 1


def test_a_folder_of_scan2cads_scene_files_ranks_by_line(tmp_path):
    (tmp_path / "a.csv").write_text(
        "03001627,plain,0.5,0,0,1,0,0,0,1,1,1\n03001627,plain,0,0,0,1,0,0,0,1,1,1\n"
    )
    (tmp_path / "b.csv").write_text("03001627,plain,0,0,0,1,0,0,0,1,1,1,0.75\n")
    found, _ = read_csv(tmp_path)
    assert [p.scene for p in found] == ["a", "a", "b"]
    assert found[0].score > found[1].score and found[2].score == 0.75
    # the wrong one of the first line takes the only chair's place
    assert score(found, {"a": [annotated()], "b": [annotated()]}).by_scene == {"a": (0, 1), "b": (1, 1)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id_scan,tx\n", "expected the columns id_scan"),
        (f"{HEADER}\na,chair,x,0,0,0,1,0,0,0,1,1,1,0.5\n", "line 2: category: expected an 8-digit"),
        (f"{HEADER}\na,03001627,x,0,zero,0,1,0,0,0,1,1,1,0.5\n", "line 2: column ty: expected a number"),
        (f"{HEADER}\na,03001627,x,0,0,0,0,0,0,0,1,1,1,0.5\n", "line 2: rotation: .* length zero"),
        (f"{HEADER}\na,03001627,x,0,0,0,1,0,0,0,1,1\n", "line 2: column sz: expected a number, got None"),
    ],
)
def test_malformed_csvs_name_line_and_column(tmp_path, text, message):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "r.csv")


def test_missing_and_short_scene_files(tmp_path):
    with pytest.raises(ValueError, match="expected files named <scene>.csv"):
        read_csv(tmp_path)
    (tmp_path / "a.csv").write_text("03001627,plain,0,0,0\n")
    with pytest.raises(
        ValueError, match="a.csv: line 1: expected category, model, 3 . 4 . 3 numbers, got 5 fields"
    ):
        read_csv(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing.csv"):
        read_csv(tmp_path / "nothing.csv")
