"""Training in two processes started by torchrun, and the command around it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from builders import furniture

from sparc_core.refine.model import load_network
from sparc_core.synth.picture_set import PictureSet, PictureSetConfig, write_picture
from sparc_core.synth.pictures import PictureConfig

HERE = Path(__file__).parent
TINY = {
    "steps": 6, "images": 4, "warmup_steps": 1,
    "data": {"detections": 2, "scenes": {"objects": 2, "clutter": 1}},
    "loss": {"points": 50},
    "model": {
        "inputs": {"n_bbox": 8, "n_cad": 6},
        "network": {"token_channels": 45, "context_channels": 26, "latents": 4, "channels": 12, "blocks": 1},
    },
}  # fmt: skip


def run_python(*arguments, **environment):
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_two_processes_stay_equal_and_resume_where_they_stopped(tmp_path):
    done = run_python(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(HERE / "train_in_processes.py"), str(tmp_path / "checkpoint.pt"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["processes"] == 2 and found["steps"] == [6, 3, 6] and found["reports"] == 2
    assert found["unmoved"] == []  # every parameter learns, whatever wraps the network
    one, other = found["digests"]
    assert one == other  # both processes hold the same parameters
    whole, first, second = one
    assert second == whole != first  # resumed as if nothing had happened
    assert found["draws"][0] != found["draws"][1]  # each goes on with images of its own


def test_predictors_resume_in_two_processes(tmp_path):
    pictures = PictureSet(furniture(), PictureSetConfig(pictures=PictureConfig(64, 48)))
    lines = [write_picture(tmp_path, i, *pictures.draw(i)) for i in range(3)]
    (tmp_path / "pictures.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "c.yaml").write_text(json.dumps({
        "network": {"width_px": 64, "height_px": 48, "channels": [8, 8, 8]},
        "train": {"steps": 2, "pictures": 2},
    }))  # fmt: skip
    command = (
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
        "sparc_core.scripts.main", "train-perception", "depth", "--out", str(tmp_path / "run"),
        "--config", str(tmp_path / "c.yaml"), "--pictures", str(tmp_path), "--validation", str(tmp_path),
        "--device", "cpu",
    )  # fmt: skip
    done = run_python(*command)
    assert done.returncode == 0 and "finished at step 2" in done.stdout, done.stderr[-3000:]
    again = run_python(*command, "--resume")
    assert again.returncode == 0 and "resumed at step 2" in again.stdout, again.stderr[-3000:]


def pretrain(out, *arguments):
    config = out.parent / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    return run_python(
        "-m", "sparc_core.scripts.main", "pretrain", "--out", str(out), "--config", str(config),
        "--cad-library", "procedural:0-1", "--validation", "procedural:0-1", "--device", "cpu", *arguments,
    )  # fmt: skip


def test_the_command_writes_weights_log_curves_and_a_checkpoint(tmp_path):
    out = tmp_path / "run"
    done = pretrain(out, "--hold-out", "bed", "--hold-out", "sofa_0000000")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "training on 15 CAD models" in done.stdout and "finished at step 6" in done.stdout
    network, _ = load_network(out / "weights.safetensors")
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, checkpoint["averaged"][name])
    log = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 6 and 0 <= log[-1]["validation"]["right"] <= 1
    assert (out / "curves.png").stat().st_size > 5000
    assert any((out / "tensorboard").iterdir())
    assert yaml.safe_load((out / "config.yaml").read_text())["steps"] == 6
    again = pretrain(out)
    assert again.returncode == 2 and "give --resume to go on" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "nothing to resume"),
        (["--hold-out", "piano"], "no CAD model's id begins so"),
        (["--init", "none.safetensors"], "no such file"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, message):
    done = pretrain(tmp_path / "run", *arguments)
    assert done.returncode == 2 and message in done.stderr
