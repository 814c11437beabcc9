"""What the kinds of fine-tuning share."""

from __future__ import annotations

from pathlib import Path

from sparc_core.scripts.training_run import RunOptions


def initial_weights(told: RunOptions, init: Path | None) -> tuple:
    """What `load_network` is to load: the weights to begin with; for a resumed run those it has reached, and
    where the configuration names a model, with that one."""
    from sparc_core.config import from_dict, load_yaml
    from sparc_core.pipeline import SHIPPED_WEIGHTS
    from sparc_core.refine.model import ModelConfig

    if told.resume:
        return told.out / "weights.safetensors", "cpu"
    named = (load_yaml(told.config) if told.config else {}).get("model")
    model = None if named is None else from_dict(ModelConfig, named, f"{told.config}: model")
    return init or SHIPPED_WEIGHTS, "cpu", model


def depth_identity(depth: str) -> str:
    """What a name of the depth stands for, files by their content."""
    return _identity(depth, "depth.safetensors")


def box_views(perception, estimates: str, jitter: float):
    """What a perception that was loaded with those estimates predicts of boxes (a `BoxViews`), or None."""
    from sparc_core.training.frame_store import BoxViews

    if perception is None or perception.estimates is None:
        return None
    return BoxViews(perception.estimates, _identity(estimates, "boxes.safetensors"), jitter)


def _identity(name: str, shipped: str) -> str:
    from sparc_core.evaluation.scan2cad.predict import file_digest, predictor_identity
    from sparc_core.perception.see import SHIPPED, WEIGHTS

    if name == SHIPPED:  # wherever it is installed
        return f"{SHIPPED} ({file_digest(WEIGHTS / shipped)})"
    return predictor_identity(name)
