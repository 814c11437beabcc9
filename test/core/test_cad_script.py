"""`sparc cad`: list, check and export-procedural."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sparc_core.cad.library import CadLibrary
from sparc_core.scripts.cad import app


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_exported_models_load_as_they_were_made(call, tmp_path):
    out = tmp_path / "models"
    result = call(
        "export-procedural",
        out,
        "--per-category",
        2,
        "--first-seed",
        7,
        "--category",
        "bin",
        "--category",
        "bed",
    )
    assert result.exit_code == 0 and "wrote 4 models" in result.output
    assert [m["id"] for m in json.loads((out / "index.json").read_text())["models"]] == [
        "bin_0000007", "bin_0000008", "bed_0000007", "bed_0000008"
    ]  # fmt: skip
    read, made = CadLibrary.from_folder(out), CadLibrary.procedural([7, 8], categories=("bin", "bed"))
    for a, b in zip(read.models, made.models, strict=True):
        assert (a.model_id, a.category, a.symmetry) == (b.model_id, b.category, b.symmetry)
        np.testing.assert_allclose(a.extents_m, b.extents_m, rtol=1e-4)
        assert len(a.faces) == len(b.faces)
        by_color = [np.unique(model.face_colors, axis=0).astype(int) for model in (a, b)]
        # 8-bit linear factors are coarse in the dark
        np.testing.assert_allclose(by_color[0].mean(0), by_color[1].mean(0), atol=8)


def test_list_and_check(call, tmp_path):
    out = tmp_path / "models"
    call("export-procedural", out, "--per-category", 1, "--category", "sofa")
    (out / "index.json").unlink()
    listed = call("list", out)
    assert listed.exit_code == 0 and "sofa_0000000" in listed.output and "1 models: 1 sofa" in listed.output
    assert call("check", out).exit_code == 0
    (out / "sofa" / "broken.glb").write_bytes(b"glTF")
    checked = call("check", out)
    assert checked.exit_code == 1
    assert "none" in checked.output and "broken.glb" in checked.output


def test_bad_input(call, tmp_path):
    gone = call("list", tmp_path / "gone")
    assert gone.exit_code == 2 and "not a folder" in gone.output
    wrong = call("export-procedural", tmp_path / "x", "--category", "lamp")
    assert wrong.exit_code == 2 and "got lamp" in wrong.output
