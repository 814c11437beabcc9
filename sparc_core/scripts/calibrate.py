"""`sparc calibrate`: make σ of a weights file mean how often it is right."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.workers import process_count, run_parts


def command(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="Weights file; it is written anew.")],
    cad_library: Annotated[
        str, typer.Option(help="CAD models, unseen in training.")
    ] = "procedural:1000100-1000119",
    images: Annotated[int, typer.Option(help="How many rooms.")] = 200,
    seed: Annotated[int, typer.Option(help="Fixes the rooms; another one than the benchmark's.")] = 11,
    jobs: Annotated[int, typer.Option(help="Processes; 0: one a core.")] = 0,
) -> None:
    """Scale the score's logit so that poses scored 0.8 are right in 80 % of the cases: for sensor depth and
    for predicted depth, each with free and with fixed scale; right and similar CAD models count alike. Of a
    network that reads hints: for what the shipped depth network predicts in pictures."""
    from sparc_core.evaluation.bench_report import TrackRecords
    from sparc_core.evaluation.calibration import fit_calibration, reliability
    from sparc_core.evaluation.methods import MethodSpec
    from sparc_core.geometry.errors import THRESHOLDS
    from sparc_core.pipeline import AlignerConfig
    from sparc_core.refine.model import Calibration, load_network, save_weights

    with report_bad_input():
        network, model = load_network(weights)
        if model.score_of != "pose":
            raise ValueError(
                f"weights {weights}: its score judges starts, not poses; it has nothing to calibrate"
            )
        measure = _in_pictures if model.inputs.hints else _in_rooms
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "uncalibrated.safetensors"
        save_weights(plain, network.state_dict(), dataclasses.replace(model, calibration=Calibration()))
        method = MethodSpec.of_file(plain, AlignerConfig())  # as `sparc align` runs it
        records = measure(method, cad_library, images, seed, process_count(jobs, images))
    fitted = {}
    with report_bad_input():
        for group, found in records.items():
            found = TrackRecords.from_records(found)
            right = found.right(next(iter(THRESHOLDS)))
            slope, offset = fit_calibration(found["score"], right)
            fitted[group] = (round(slope, 4), round(offset, 4))
            before = reliability(found["score"], right).ece
            found_so = f"slope {slope:.3f}, offset {offset:+.3f} from {len(found)} objects"
            typer.echo(f"{group}: {found_so}; the calibration error was {before:.3f}")
        calibration = dataclasses.replace(model.calibration, **fitted)
        save_weights(weights, network.state_dict(), dataclasses.replace(model, calibration=calibration))
    typer.echo(f"wrote {weights}")


def _in_rooms(method, cad_library: str, images: int, seed: int, jobs: int) -> dict[str, list[dict]]:
    """The benchmark's records by the field of `Calibration` that they are for."""
    from sparc_core.evaluation.bench import TRACKS, BenchConfig, BenchRunner

    groups = {
        source + ("_fixed" if fixed else ""): {
            t.name for t in TRACKS if (t.channels, t.true_size) == (channels, fixed)
        }
        for source, channels in (("sensor", "sensor"), ("predicted", "mono"))
        for fixed in (False, True)
    }
    names = tuple(t.name for t in TRACKS if any(t.name in members for members in groups.values()))
    with report_bad_input():
        config = BenchConfig(images, seed, names, cad_library)
    rooms = run_parts(BenchRunner, (config, method, "cpu"), images, jobs)
    found = [record for room in rooms for record in room]
    return {group: [r for r in found if r["track"] in members] for group, members in groups.items()}


def _in_pictures(method, cad_library: str, images: int, seed: int, jobs: int) -> dict[str, list[dict]]:
    """Records of what a network that reads hints makes of pictures, with the shipped predictors."""
    from sparc_core.evaluation.rgb_bench import RgbBenchConfig, RgbBenchRunner
    from sparc_core.perception.see import SHIPPED, PerceptionConfig

    with report_bad_input():
        config = RgbBenchConfig(images, seed, cad_library, ("RGB, true boxes, right model",))
    perception = PerceptionConfig(SHIPPED, SHIPPED)
    rooms = run_parts(RgbBenchRunner.load, (config, perception, method), images, jobs)
    aligned = [r for room in rooms for r in room["objects"] if r["aligned"] is not None]
    return {"predicted": aligned}
