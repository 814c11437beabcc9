"""Weights files: what is written is what is read, and misfits are named."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sparc_core.config import to_dict
from sparc_core.inputs.assemble import InputConfig
from sparc_core.network.alignment import MultiSparcNet
from sparc_core.network.config import NetworkConfig
from sparc_core.refine.model import Calibration, ModelConfig, load_network, save_weights

SIZES = {"latents": 4, "channels": 12, "blocks": 1, "self_layers": 1}
CONFIG = ModelConfig(InputConfig(n_bbox=8, n_cad=6), NetworkConfig(45, 26, **SIZES), "polar", n_mul=3)


def network(seed=0, config=CONFIG):
    torch.manual_seed(seed)
    return MultiSparcNet(config.network).eval()


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "folder" / "w.safetensors"
    save_weights(path, network().state_dict(), CONFIG)
    return path


def test_a_network_comes_back_with_its_parameters_and_its_config(weights):
    loaded, config = load_network(weights)
    assert config == CONFIG
    for name, value in network().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    tokens, context = torch.randn(1, 2, 5, 45), torch.randn(1, 2, 26)
    valid = torch.ones(1, 2, 5, dtype=torch.bool)
    inputs = (tokens, context, valid, valid[..., 0])
    assert torch.equal(loaded(*inputs).raw_update, network()(*inputs).raw_update)


def test_the_file_is_plain_safetensors_with_the_config_inside_and_nothing_is_left_beside_it(weights):
    with safe_open(weights, framework="pt") as stored:
        assert json.loads(stored.metadata()["model_config"]) == json.loads(json.dumps(to_dict(CONFIG)))
    assert [p.name for p in weights.parent.iterdir()] == ["w.safetensors"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"weights .*nowhere.safetensors: no such file"):
        load_network(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00." * 50, b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_named(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w.safetensors: not a readable safetensors file"):
        load_network(path)


def test_a_file_that_was_cut_short_is_named(weights):
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"w.safetensors: not a readable safetensors file"):
        load_network(weights)


def test_weights_without_a_config_are_refused_unless_one_is_given(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file(network().state_dict(), path)
    with pytest.raises(ValueError, match="foreign.safetensors: holds no model_config"):
        load_network(path)
    assert load_network(path, config=CONFIG)[1] == CONFIG


def test_an_unknown_option_in_the_stored_config_is_named(tmp_path):
    path = tmp_path / "newer.safetensors"
    stored = {**to_dict(CONFIG), "depth_of_thought": 3}
    save_file(network().state_dict(), path, metadata={"model_config": json.dumps(stored)})
    with pytest.raises(
        ValueError, match=r"newer.safetensors: model_config: unknown keys \['depth_of_thought'\]"
    ):
        load_network(path)


def test_a_stored_config_whose_parts_do_not_fit_is_named_with_its_file(tmp_path):
    path = tmp_path / "older.safetensors"
    stored = to_dict(CONFIG)
    stored["network"]["context_channels"] = 42
    save_file(network().state_dict(), path, {"model_config": json.dumps(stored)})
    with pytest.raises(ValueError, match=r"older.safetensors: network context_channels is 42, but .* has 26"):
        load_network(path)


def test_a_stored_config_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    save_file(network().state_dict(), path, metadata={"model_config": "{layout: object"})
    with pytest.raises(ValueError, match="broken.safetensors: model_config is not JSON: Expecting"):
        load_network(path)


def test_the_calibration_is_kept_and_checked(tmp_path):
    calibration = Calibration(sensor=(0.8, -0.1))
    path = tmp_path / "w.safetensors"
    save_weights(path, network().state_dict(), dataclasses.replace(CONFIG, calibration=calibration))
    assert load_network(path)[1].calibration == calibration
    with pytest.raises(ValueError, match=r"calibration predicted must be .*got \(0.0, 1.0\)"):
        Calibration(predicted=(0.0, 1.0))


def test_shapes_that_do_not_fit_the_config_are_named(weights):
    wider = ModelConfig(CONFIG.inputs, NetworkConfig(45, 26, **{**SIZES, "latents": 5}))
    with pytest.raises(
        ValueError, match=r"do not fit the config: trunk.latents is \(1, 4, 12\), expected \(1, 5, 12\)"
    ):
        load_network(weights, config=wider)


def test_missing_and_unknown_parameters_are_named(tmp_path):
    state = network().state_dict()
    state["head.extra"] = state.pop("head.0.weight")
    path = tmp_path / "w.safetensors"
    save_weights(path, state, CONFIG)
    with pytest.raises(ValueError, match="head.0.weight is missing; head.extra is unknown"):
        load_network(path)


def test_many_misfits_are_summed_up(weights):
    deeper = ModelConfig(CONFIG.inputs, NetworkConfig(45, 26, **{**SIZES, "blocks": 2}))
    with pytest.raises(ValueError, match=r"trunk.cross.1.\S+ is missing.* and \d+ more"):
        load_network(weights, config=deeper)


def test_a_network_without_hints_can_be_given_them_and_ignores_them_to_begin_with(weights):
    told = dataclasses.replace(
        CONFIG,
        inputs=dataclasses.replace(CONFIG.inputs, hints=True),
        network=dataclasses.replace(CONFIG.network, token_channels=47, context_channels=44),
    )
    wide, config = load_network(weights, config=told)
    assert config == told
    tokens, context = torch.randn(1, 2, 5, 47), torch.randn(1, 2, 44)
    valid = torch.ones(1, 2, 5, dtype=torch.bool)
    found = wide(tokens, context, valid, valid[..., 0]).raw_update
    before = network()(tokens[..., :45], context[..., :26], valid, valid[..., 0]).raw_update
    torch.testing.assert_close(found, before)
    # one that was trained with them keeps its own columns
    save_weights(weights, {**wide.state_dict(), "embed_token.weight": torch.ones(12, 47)}, told)
    again, _ = load_network(weights, config=told)
    assert (again.embed_token.weight == 1).all()
    # one that was trained with some of them ignores the others
    some = torch.ones(12, 32)
    save_weights(weights, {**wide.state_dict(), "embed_context.weight": some}, told)
    wider, _ = load_network(weights, config=told)
    assert (wider.embed_context.weight[:, :32] == 1).all() and (wider.embed_context.weight[:, 32:] == 0).all()
    with pytest.raises(ValueError, match="embed_token.weight"):
        load_network(weights, config=CONFIG)
