"""The direction of imports: what a subpackage may build on, checked on the source text."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Method, from the bottom up: types → geometry → cad, perception → network, inputs → refine → pipeline.
# The baselines stand where the pipeline stands: on the same perception, CAD models and retrieval.
# Beside it: files and visualise (in and out), datasets, tracking, mapping, synth (scenes to train and test
# on). On top: training, evaluation and the commands. A layer may always import itself.
_BELOW_INPUTS = {"types", "geometry", "cad", "perception"}
_BELOW_PIPELINE = {*_BELOW_INPUTS, "network", "inputs", "refine", "config", "weights_file"}
ALLOWED = {
    "types": set(),
    "config": set(),
    "weights_file": {"config"},
    "device": set(),
    "geometry": {"types"},
    "cad": {"types", "geometry"},
    "perception": {"types", "geometry", "cad", "config", "weights_file"},
    "network": {"types"},
    "inputs": _BELOW_INPUTS,
    "refine": {*_BELOW_INPUTS, "network", "inputs", "config", "weights_file"},
    "retrieval": _BELOW_PIPELINE,
    "pipeline": {*_BELOW_PIPELINE, "retrieval", "device"},
    "baselines": {*_BELOW_PIPELINE, "retrieval"},
    "tracking": {"types", "geometry", "cad", "pipeline", "mapping"},
    "mapping": {"types", "geometry", "cad"},
    "files": {"types"},
    "visualise": {"types", "geometry", "cad", "perception"},
    "datasets": {"types", "geometry", "cad", "files", "visualise"},
    "synth": {*_BELOW_INPUTS, "inputs"},
    "training": {*_BELOW_PIPELINE, "synth", "retrieval", "datasets", "baselines"},
    "evaluation": {
        *_BELOW_PIPELINE,
        "device",
        "synth",
        "pipeline",
        "baselines",
        "retrieval",
        "tracking",
        "files",
        "datasets",
        "mapping",
        "visualise",
    },  # fmt: skip
    "scripts": {
        *_BELOW_PIPELINE,
        "device",
        "retrieval",
        "pipeline",
        "baselines",
        "tracking",
        "files",
        "visualise",
        "datasets",
        "mapping",
        "synth",
        "training",
        "evaluation",
    },
}
# the demo camera shows synthetic rooms; nothing of training or of the benchmarks belongs into a robot's node
ROS_MAY_USE = {
    "types",
    "perception",
    "pipeline",
    "tracking",
    "cad",
    "geometry",
    "files",
    "visualise",
    "synth",
}
ROS_MODULES = {
    "rclpy", "sparc_ros", "ament_index_python", "cv_bridge", "launch", "launch_ros",
    "message_filters", "tf2_ros", "tf_transformations",
}  # fmt: skip


@functools.cache
def imports_of(package):
    """{module: the full names it imports}, anywhere in the file, also inside functions."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: write imports from the top, not relative ones"
                # `from sparc_core import types` names a module, `from sparc_core.types import …` does not
                bare = node.module in ("sparc_core", "sparc_ros")
                names |= {f"{node.module}.{alias.name}" for alias in node.names} if bare else {node.module}
        found[module] = names
    return found


def layer(module):
    """ "geometry" of "sparc_core.geometry.camera"; "" of the package itself."""
    return (module.split(".") + [""])[1]


def core_imports():
    """(module, imported) for every import within sparc_core."""
    for module, names in imports_of("sparc_core").items():
        for name in sorted(names):
            if name.startswith("sparc_core.") and layer(name) != "__version__":
                yield module, name


def test_every_part_of_sparc_core_has_its_place():
    assert {layer(module) for module in imports_of("sparc_core")} - {""} == set(ALLOWED)


def test_imports_point_downwards():
    wrong = [
        f"{module} imports {name}"
        for module, name in core_imports()
        if layer(name) not in {*ALLOWED.get(layer(module), ()), layer(module)}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_layers_themselves_have_no_cycle():
    """Following the rules never leads back."""

    def reachable(start, seen=()):
        assert start not in seen, f"{' -> '.join((*seen, start))}"
        for below in ALLOWED[start]:
            reachable(below, (*seen, start))

    for name in ALLOWED:
        reachable(name)


def test_sparc_core_knows_nothing_of_ros():
    for module, names in imports_of("sparc_core").items():
        tops = {name.split(".")[0] for name in names}
        ros = {top for top in tops if top in ROS_MODULES or top.endswith(("_msgs", "_interfaces"))}
        assert not ros, f"{module} imports {sorted(ros)}"


def test_the_network_stands_alone():
    for module, names in imports_of("sparc_core").items():
        if layer(module) == "network":
            others = {layer(n) for n in names if n.startswith("sparc_core.")} - {"network", "types"}
            assert not others, f"{module} imports {sorted(others)}"


@pytest.mark.parametrize("top", ["training", "evaluation"])
def test_only_the_top_imports_training_and_evaluation(top):
    for module, name in core_imports():
        if layer(name) == top:
            assert layer(module) in (top, "scripts"), f"{module} imports {name}"
    for module, names in imports_of("sparc_ros").items():
        used = {layer(n) for n in names if n.startswith("sparc_core.")}
        assert used <= ROS_MAY_USE, f"{module} imports {sorted(used - ROS_MAY_USE)}"


def test_nothing_imports_the_commands():
    for package in ("sparc_core", "sparc_ros"):
        for module, names in imports_of(package).items():
            if layer(module) != "scripts":
                assert not any(n.startswith("sparc_core.scripts") for n in names), module
