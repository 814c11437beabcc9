"""Configurations of training: plain dicts and YAML, wrong values, the files that come with the project."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from test_training import DATA, tiny

from sparc_core.config import from_dict, load_yaml, to_dict
from sparc_core.synth.corrupt import NoiseConfig
from sparc_core.training.train import TrainConfig

CONFIGS = Path(__file__).resolve().parents[2] / "config" / "training"


def test_a_config_survives_plain_dicts_and_yaml(tmp_path):
    config = tiny(data=dataclasses.replace(DATA, noise=NoiseConfig(box_jitter=0.1)), optimiser="lamb")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(to_dict(config)))))
    assert from_dict(TrainConfig, load_yaml(path)) == config
    assert from_dict(TrainConfig, {}) == TrainConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, r"config: unknown keys \['stepz'\]; known are .*'steps'"),
        (
            {"model": {"network": {"token_channels": 45, "layers": 2}}},
            r"config.model.network: unknown keys \['layers'\]",
        ),
        ({"data": {"scenes": {"objets": 2}}}, r"config.data.scenes: unknown keys \['objets'\]"),
        ({"optimiser": "sgd"}, "optimiser must be one of.*got 'sgd'"),
        ({"steps": "6"}, "config.steps: expected int, got '6'"),
        ({"model": 3}, "config.model: expected a mapping of options, got 3"),
        ({"steps": 0}, "training steps must be at least 1, got 0"),
        ({"classifier_share": 1.0}, "classifier_share must be in"),
        ({"data": {"detections": 9}}, r"data detections must be between 1 and scenes.objects \(6\), got 9"),
        (
            {"model": {"inputs": {"layout": "paper"}}},
            "network token_channels is 45, but the paper layout has 13",
        ),
        ({"model": {"parametrisation": "euler"}}, "parametrisation must be one of"),
        ({"model": {"n_mul": 0}}, "n_mul must be at least 1"),
        ({"model": {"score_of": "end"}}, r"score_of must be one of \('pose', 'start'\), got 'end'"),
        (
            {"model": {"score_of": "start"}},
            "converged_share must be 0 for a model whose score is of the start",
        ),
    ],
)
def test_unknown_keys_and_values_out_of_range_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(TrainConfig, values)


def test_the_comparison_of_layouts_differs_in_nothing_else():
    paper, ours, single = (
        from_dict(TrainConfig, load_yaml(CONFIGS / "comparison" / f"{name}_layout.yaml"))
        for name in ("paper", "object", "sparc2022")
    )
    assert dataclasses.replace(ours, model=paper.model) == paper
    changed = {"images": paper.images, "converged_share": paper.converged_share, "model": paper.model}
    many = dataclasses.replace(single.data, detections=paper.data.detections)
    assert dataclasses.replace(single, data=many, **changed) == paper
    assert (single.model.parametrisation, single.model.score_of, single.model.n_mul) == (
        "additive",
        "start",
        1,
    )
    assert single.images * single.data.detections == paper.images * paper.data.detections


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("multi_sparc_main", 3000), ("multi_sparc_sparse", 600), ("multi_sparc_sparsest", 150),
        ("sparc2022", 10_055),
    ],
)  # fmt: skip
def test_the_papers_setups_have_their_token_counts(name, tokens):
    config = from_dict(TrainConfig, load_yaml(CONFIGS / f"{name}.yaml"))
    inputs = config.model.inputs
    assert (inputs.layout, inputs.n_bbox + 2 * inputs.n_cad) == ("paper", tokens)
    single = name == "sparc2022"
    assert config.model.n_mul == (1 if single else 5)
    assert config.model.parametrisation == ("additive" if single else "polar")
    assert config.model.score_of == ("start" if single else "pose")
    assert config.data.detections == (1 if single else 4)


@pytest.mark.parametrize(
    ("text", "message"), [("- a\n- b\n", "expected a mapping.*got list"), ("a: [", "not valid YAML")]
)
def test_a_config_file_that_is_no_mapping_is_named(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"broken.yaml: {message}"):
        load_yaml(path)
