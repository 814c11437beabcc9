"""`sparc evaluate rgb` and `sparc evaluate rivals`: what they write, and what they refuse."""

import json

import cv2
import pytest
from typer.testing import CliRunner

from sparc_core.scripts.main import app

LIBRARY = "procedural:0-1"
COMMON = ("--images", "1", "--jobs", "1", "--cad-library", LIBRARY)


def test_rgb_writes_figures_tables_plots_and_a_contact_sheet(tmp_path):
    tracks = ("--track", "RGB-D", "--track", "RGB-D, true boxes, right model", "--records")
    result = CliRunner().invoke(app, ["evaluate", "rgb", "--out", str(tmp_path), *COMMON, *tracks])
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "rgb.json").read_text())
    assert [t["track"] for t in facts["tracks"]] == ["RGB-D", "RGB-D, true boxes, right model"]
    text = (tmp_path / "rgb.md").read_text()
    assert "| RGB-D | σ |" in text and "right model | σ |" not in text  # true boxes have no score
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(records) == sum(t["all"]["objects"] for t in facts["tracks"])
    limits = {(x["of"], x["known"]): x for x in facts["scale_limit"]}
    whole = limits["all", "categories"]
    assert whole["objects"] == facts["tracks"][0]["all"]["objects"] == limits["all", "models"]["objects"]
    shown = f"| the categories of all objects | {whole['objects']} | {whole['scale_off']:.1f} | "
    assert shown + f"{whole['placed']:.1f} |" in text
    for name in ("tracks", "categories", "reliability", "conditions", "ranking"):
        assert (tmp_path / f"{name}.png").stat().st_size > 3000
    for track in facts["tracks"]:
        rows = [r for r in records if r["track"] == track["track"] and r["aligned"] and r["well_visible"]]
        sheet = tmp_path / f"cases_{track['track'].replace(', ', '_').replace(' ', '_')}.jpg"
        assert sheet.exists() == (len(rows) >= 3)  # one for each of best, median and worst


def test_rivals_writes_a_table_with_latencies_and_a_folder_of_plots(tmp_path):
    small = tmp_path / "small.yaml"
    small.write_text(
        "model:\n  inputs: {layout: paper, n_bbox: 30, n_cad: 20}\n  parametrisation: additive\n  n_mul: 1\n"
        "  score_of: start\n"
        "  network: {token_channels: 13, context_channels: 0, embed_tokens: false, latents: 4}\n"
    )
    methods = ("--method", "Multi-SPARC (ours)=shipped", "--method", f"SPARC={small}")
    track = ("--track", "RGB-D, true boxes, right model", "--repeats", "2", "--threads", "1")
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["evaluate", "rivals", "--out", str(out), *COMMON, *methods, *track])
    assert result.exit_code == 0, result.output
    facts = json.loads((out / "rivals.json").read_text())
    (found,) = facts["tracks"].values()
    assert list(found) == ["Multi-SPARC (ours)"]  # random weights have no accuracy
    assert list(facts["latency"]) == ["Multi-SPARC (ours)", "SPARC"]
    table = (out / "rivals.md").read_text()
    assert "| SPARC | – | – |" in table and "times as long as SPARC for five objects (paper: 0.45)" in table
    folder = out / "RGB-D_true_boxes_right_model"
    assert {p.name for p in folder.glob("*.png")} == {
        "tracks.png", "categories.png", "reliability.png", "conditions.png"
    }  # fmt: skip
    assert cv2.imread(str(out / "latency.png")) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rivals", "--method", "a=b+c+d"], "method a: more than two files"),
        (["rivals", "--method", "a=shipped", "--device", "cuda:x"], "'cuda:x'"),
        (["rgb", "--method", "roca.safetensors+shipped"], "roca.safetensors: no such file"),
        (["rgb", "--method", "small.yaml"], "method small.yaml: a network with random weights"),
        (["rivals", "--method", "a=missing.safetensors"], "missing.safetensors: no such file"),
        (["rivals", "--method", "a=shipped", "--track", "radar"], "unknown track 'radar'"),
        (["rivals", "--method", "a=shipped", "--repeats", "-1"], "repeats must not be negative, got -1"),
        (["rgb", "--track", "radar"], "unknown track 'radar'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, message):
    command, *rest = arguments
    result = CliRunner().invoke(app, ["evaluate", command, "--out", str(tmp_path / "o"), *COMMON, *rest])
    assert result.exit_code == 2 and message in result.output
