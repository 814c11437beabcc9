"""Names of devices, and the commands that take one."""

import pytest
import torch
import typer
from typer.testing import CliRunner

from sparc_core.device import check_device, find_device
from sparc_core.scripts.main import app
from sparc_core.scripts.training_run import RunOptions


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_names_are_taken_as_they_are(name):
    assert check_device(name) == name


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:0\n"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N") as refused:
        check_device(name)
    assert repr(name) in str(refused.value)


def pretend_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_what_is_there_is_found(monkeypatch):
    pretend_gpus(monkeypatch, 2)
    names = ("auto", "cpu", "cuda", "cuda:1")
    assert [find_device(name) for name in names] == ["cuda", "cpu", "cuda", "cuda:1"]
    with pytest.raises(ValueError, match="device is 'cuda:2', but PyTorch finds 2 of them here"):
        find_device("cuda:2")
    pretend_gpus(monkeypatch, 0)
    assert find_device("auto") == "cpu"
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=f"device is '{name}', but PyTorch finds no usable CUDA device"):
            find_device(name)


def test_a_training_on_a_certain_gpu_makes_it_the_current_one(monkeypatch, tmp_path):
    pretend_gpus(monkeypatch, 2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    told = RunOptions(tmp_path, None, "cuda:1", 0, 0.0, False)
    assert told.use_device() == "cuda:1" and chosen == ["cuda:1"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device is 'cuda:1', but every process has a GPU of its own"):
        told.use_device()


def commands_with_a_device(command, name="sparc"):
    """(name, command, option) of every command that has the option."""
    for option in command.params:
        if option.name == "device":
            yield name, command, option
    for word in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from commands_with_a_device(command.get_command(None, word), f"{name} {word}")


def test_every_command_refuses_a_device_that_is_none():
    found = list(commands_with_a_device(typer.main.get_command(app)))
    assert {"sparc align", "sparc pretrain", "sparc train-baseline roca", "sparc evaluate rivals"} <= {
        name for name, _, _ in found
    }
    for name, command, option in found:
        context = typer.Context(command, info_name=name)
        assert option.process_value(context, "cuda:1") == "cuda:1"
        with pytest.raises(typer.BadParameter, match="got 'tpu'"):
            option.process_value(context, "tpu")


def test_the_option_is_named_beside_the_value():
    result = CliRunner().invoke(app, ["pretrain", "--out", "o", "--device", "tpu"])
    assert result.exit_code == 2 and "'--device'" in result.output and "'tpu'" in result.output


def test_a_training_names_a_gpu_that_is_not_there(monkeypatch, tmp_path):
    pretend_gpus(monkeypatch, 1)
    result = CliRunner().invoke(app, ["pretrain", "--out", str(tmp_path), "--device", "cuda:3"])
    assert result.exit_code == 2
    assert "error: device is 'cuda:3', but PyTorch finds 1 of them here" in result.output
