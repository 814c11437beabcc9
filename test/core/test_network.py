"""Multi-SPARC-Net: padding, permutation, masking, its variants and what it refuses."""

import itertools

import numpy as np
import pytest
import torch

from sparc_core.network.alignment import UPDATE_CHANNELS, MultiSparcNet
from sparc_core.network.config import NetworkConfig

CHANNELS, CONTEXT = 9, 4
AT_LEAST_ONE = ("token_channels", "latents", "channels", "heads", "blocks", "feedforward", "joint_objects")
VARIANTS = list(itertools.product(("separate", "joint"), ("separate", "joint")))


def small_network(seed=0, **changes):
    """A small network whose last layer is not near zero, so that outputs differ visibly."""
    torch.manual_seed(seed)
    arguments = {
        "token_channels": CHANNELS,
        "context_channels": CONTEXT,
        "latents": 5,
        "channels": 24,
        "blocks": 2,
    }
    network = MultiSparcNet(NetworkConfig(**{**arguments, **changes})).eval()
    torch.nn.init.normal_(network.head[-1].weight, std=0.5)
    return network


def batch_of(images, objects, tokens=7, seed=1):
    """tokens, context, token_valid (some False), object_valid (all True)."""
    gen = torch.Generator().manual_seed(seed)
    token_valid = torch.rand(images, objects, tokens, generator=gen) < 0.8
    token_valid[..., 0] = True
    return (
        torch.randn(images, objects, tokens, CHANNELS, generator=gen),
        torch.randn(images, objects, CONTEXT, generator=gen),
        token_valid,
        torch.ones(images, objects, dtype=torch.bool),
    )


def stacked(output):
    """(B, N, 11) update and score side by side."""
    return torch.cat((output.raw_update, output.score_logit[..., None]), -1)


@torch.no_grad()
def run(network, inputs):
    return stacked(network(*inputs))


def padded(inputs, count, value):
    """The batch with `count` more, invalid objects whose tokens hold `value`."""
    tokens, context, token_valid, object_valid = inputs
    images, _, number, channels = tokens.shape
    return (
        torch.cat((tokens, torch.full((images, count, number, channels), value)), 1),
        torch.cat((context, torch.full((images, count, CONTEXT), value)), 1),
        torch.cat((token_valid, torch.ones(images, count, number, dtype=torch.bool)), 1),
        torch.cat((object_valid, torch.zeros(images, count, dtype=torch.bool)), 1),
    )


@pytest.mark.parametrize(("encoding", "decoding"), VARIANTS)
@pytest.mark.parametrize("objects", [1, 3])
def test_padding_an_image_with_objects_changes_nothing_for_the_real_ones(encoding, decoding, objects):
    network = small_network(encoding=encoding, decoding=decoding)
    inputs = batch_of(2, objects)
    alone = run(network, inputs)
    assert alone.shape == (2, objects, UPDATE_CHANNELS + 1)
    for value in (0.0, 1e3):
        beside_padding = run(network, padded(inputs, 2, value))[:, :objects]
        np.testing.assert_allclose(beside_padding, alone, atol=1e-5)
    assert alone.abs().max() > 0.1  # not all the same for want of a signal


def test_images_of_one_batch_do_not_see_each_other():
    network = small_network()
    inputs = batch_of(3, 2)
    alone = run(network, tuple(x[1:2] for x in inputs))
    np.testing.assert_allclose(run(network, inputs)[1:2], alone, atol=1e-5)


def test_permuting_the_objects_permutes_the_outputs():
    network = small_network()
    inputs = batch_of(2, 4)
    order = torch.tensor([2, 0, 3, 1])
    original = run(network, inputs)
    np.testing.assert_allclose(
        run(network, tuple(x[:, order] for x in inputs)), original[:, order], atol=1e-5
    )
    assert (original[:, 0] - original[:, 1]).abs().max() > 1e-3  # else any permutation would do


def test_objects_of_one_image_do_inform_each_other():
    network = small_network()
    inputs = batch_of(1, 2)
    changed = inputs[0].clone()
    changed[:, 1] += 1
    assert (run(network, inputs)[:, 0] - run(network, (changed, *inputs[1:]))[:, 0]).abs().max() > 1e-4


@pytest.mark.parametrize("encoding", ["separate", "joint"])
def test_invalid_tokens_have_no_influence(encoding):
    network = small_network(encoding=encoding)
    tokens, context, token_valid, object_valid = batch_of(2, 3)
    filled = torch.where(token_valid[..., None], tokens, torch.tensor(1e3))
    assert not token_valid.all()
    before = run(network, (tokens, context, token_valid, object_valid))
    np.testing.assert_allclose(run(network, (filled, context, token_valid, object_valid)), before, atol=1e-5)
    # a valid token does have influence
    tokens[:, :, 0] += 1
    assert (run(network, (tokens, context, token_valid, object_valid)) - before).abs().max() > 1e-3


@pytest.mark.parametrize(("encoding", "decoding"), VARIANTS)
def test_objects_without_a_valid_token_and_images_without_objects_give_no_nan(encoding, decoding):
    network = small_network(encoding=encoding, decoding=decoding)
    tokens, context, token_valid, object_valid = batch_of(3, 2)
    token_valid[0, 1] = False  # a real object that sees nothing
    object_valid[1, 1] = False  # a padded one
    object_valid[2] = False  # an image of padding
    token_valid[2] = False
    output = network(tokens, context, token_valid, object_valid)
    assert torch.isfinite(stacked(output)).all()
    stacked(output)[object_valid].square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_blind_object_leaves_the_others_as_if_its_tokens_were_gone():
    network = small_network()
    tokens, context, token_valid, object_valid = batch_of(1, 2)
    token_valid[0, 1] = False
    blind = run(network, (tokens, context, token_valid, object_valid))
    tokens[0, 1] = 77.0
    np.testing.assert_allclose(run(network, (tokens, context, token_valid, object_valid)), blind, atol=1e-5)


def test_joint_variants_have_parameters_of_their_own():
    def parameters(**changes):
        return sum(p.numel() for p in small_network(**changes).parameters())

    separate = parameters()
    marks = 5 * 24
    # joint encoding: latents for each of the 5 objects; joint decoding: 5 · 11 outputs of a 48-wide MLP
    assert parameters(encoding="joint") == separate + marks + 4 * 5 * 24
    assert parameters(decoding="joint") == separate + marks + 4 * 11 * (48 + 1)


@pytest.mark.parametrize("variant", [{"encoding": "joint"}, {"decoding": "joint"}])
def test_joint_variants_can_tell_whose_token_it_is(variant):
    network = small_network(**variant)
    tokens, context, token_valid, object_valid = batch_of(1, 3)
    swapped = [2, 1, 0]
    before = run(network, (tokens, context, token_valid, object_valid))
    after = run(network, (tokens[:, swapped], context[:, swapped], token_valid[:, swapped], object_valid))
    assert (after - before).abs().max() > 1e-2


@pytest.mark.parametrize("variant", [{"encoding": "joint"}, {"decoding": "joint"}])
def test_joint_variants_refuse_more_objects_than_they_were_built_for(variant):
    network = small_network(**variant, joint_objects=2)
    assert run(network, batch_of(1, 2)).shape == (1, 2, 11)
    with pytest.raises(ValueError, match="at most 2 objects.*got 3"):
        network(*batch_of(1, 3))


def test_separate_network_takes_any_number_of_objects():
    assert run(small_network(joint_objects=1), batch_of(1, 11)).shape == (1, 11, 11)


def test_channels_that_do_not_fit_the_config_are_refused():
    tokens, context, token_valid, object_valid = batch_of(1, 2)
    network = small_network()
    with pytest.raises(ValueError, match="tokens need 9 channels, got 8"):
        network(tokens[..., :8], context, token_valid, object_valid)
    with pytest.raises(ValueError, match="context needs 4 channels, got 0"):
        network(tokens, None, token_valid, object_valid)
    with pytest.raises(ValueError, match="context needs 4 channels, got 3"):
        network(tokens, context[..., :3], token_valid, object_valid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({name: 0}, f"network {name} must be at least 1, got 0") for name in AT_LEAST_ONE),
        ({"self_layers": -1}, "network self_layers must not be negative, got -1"),
        ({"context_channels": -2}, "network context_channels must not be negative, got -2"),
        ({"channels": 25}, r"channels \(25\) must be a multiple of heads \(3\)"),
        ({"encoding": "both"}, "network encoding must be 'separate' or 'joint', got 'both'"),
        ({"decoding": "both"}, "network decoding must be 'separate' or 'joint', got 'both'"),
        ({"embed_tokens": False}, "context_channels needs embed_tokens"),
    ],
)  # fmt: skip
def test_a_config_names_the_field_that_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        small_network(**change)


def test_gradients_reach_every_parameter_and_are_finite():
    network = small_network()
    stacked(network(*batch_of(2, 3))).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        if not name.endswith("key_value.bias"):  # its key half cancels in the softmax
            assert parameter.grad.abs().max() > 0, name


def test_a_new_network_starts_near_the_identity_update():
    torch.manual_seed(0)
    network = MultiSparcNet(NetworkConfig(CHANNELS, CONTEXT)).eval()
    assert run(network, batch_of(2, 3))[..., :UPDATE_CHANNELS].abs().max() < 0.5


def test_the_papers_main_setup_can_be_built_and_run():
    # 80 latents × 256, three blocks, raw tokens of 13 channels
    config = NetworkConfig(13, latents=80, channels=256, heads=4, blocks=3, self_layers=2, embed_tokens=False)
    torch.manual_seed(0)
    network = MultiSparcNet(config).eval()
    assert tuple(network.trunk.latents.shape) == (1, 80, 256)
    tokens = torch.randn(1, 2, 12, 13)
    valid = torch.ones(1, 2, 12, dtype=torch.bool)
    assert run(network, (tokens, None, valid, valid[..., 0])).shape == (1, 2, 11)
