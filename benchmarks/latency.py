"""Latency of the alignment for 1, 5, 10 and 20 objects: assembly, network and the whole search.

    ./run python benchmarks/latency.py --out benchmarks/results/latency.json

One rendered room is aligned again and again; its detections are repeated up to the wanted number, each
with its CAD model given. "video" is what a tracker needs: one start per object instead of four.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

import torch

from sparc_core.cad.library import CadLibrary
from sparc_core.evaluation.machine import describe_machine
from sparc_core.evaluation.synthetic import SyntheticSetConfig, synthetic_images
from sparc_core.inputs.select import select_box_pixels
from sparc_core.perception.prepare import prepare_image
from sparc_core.pipeline import Aligner
from sparc_core.refine.batch import build_search
from sparc_core.refine.depth_fit import SENSOR, fit_search_results
from sparc_core.refine.loop import CadSurface, StageClock, observe_tokens
from sparc_core.refine.search import Search

COUNTS = (1, 5, 10, 20)


def main() -> None:
    """Measure, print a table, write the JSON."""
    arguments = _arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    aligner = Aligner.load(arguments.weights, CadLibrary.procedural(range(4)), device=arguments.device)
    image = _busy_image(aligner.cad_library)
    report = {
        "machine": describe_machine(aligner.device),
        "repeats": arguments.repeats,
        "rows": [],
    }
    print(
        f"{'objects':>7}  "
        + "  ".join(f"{name:>14}" for name in ("observe", "assembly", "forward", "fit", "search", "video"))
        + "   median ms (10th–90th percentile)"
    )
    for count in COUNTS:
        detections = tuple(image.detections[i % len(image.detections)] for i in range(count))
        row = _measure(aligner, dataclasses.replace(image, detections=detections), arguments.repeats)
        report["rows"].append({"objects": count, **row})
        print(f"{count:>7}  " + "  ".join(f"{_show(row[name]):>14}" for name in row))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"wrote {arguments.out}")


def _measure(aligner: Aligner, image, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds per stage: one assembly, one forward pass, the fit to depth, and the whole search after
    perception, fit included."""
    inputs = aligner.model_config.inputs
    generator = torch.Generator(aligner.device).manual_seed(0)
    prepare = (image.rgb, image.camera, image.detections, image.depth_m, aligner.cad_library, aligner.config,
               aligner.device)  # fmt: skip

    def fresh():
        prepared = prepare_image(*prepare)
        return prepared, build_search(
            prepared, aligner.cad, aligner.model_config.n_mul, aligner.config, aligner.cad_library
        )

    def search(prepared, batch, rows):
        found = Search(aligner.network, aligner.model_config, aligner.cad, batch, aligner.config).run(rows)
        return fit_search_results(found, prepared, aligner.cad, SENSOR) if aligner.config.depth_fit else found

    prepared, batch = fresh()
    every = torch.arange(len(batch.block), device=aligner.device)
    first = every[batch.start == 0]
    found = Search(aligner.network, aligner.model_config, aligner.cad, batch, aligner.config).run(every)

    samples = batch.source.sample(select_box_pixels(batch.block_frame, inputs.n_bbox, generator))
    part = batch.rows(every, samples)
    surface = CadSurface(aligner.cad.surface, part.model, part.start.S, torch.zeros_like(part.model) > 0)

    def assemble():
        return observe_tokens(
            inputs, part.frame, part.source, surface, part.start, part.box_samples, generator
        )

    tokens = assemble()

    def forward():
        return aligner.network(tokens.features, tokens.context, tokens.valid, part.frame.object_valid)

    stages = {
        "observe": lambda: prepare_image(*prepare),
        "assembly": assemble,
        "forward": forward,
        "fit": lambda: fit_search_results(found, prepared, aligner.cad, SENSOR),
    }
    # an image keeps the normals that were fitted where it was read: each search gets one of its own
    whole = {"search": lambda image: search(*image, every), "video": lambda image: search(*image, first)}
    times = {name: _time(lambda _, s=stage: s(), repeats, aligner.device) for name, stage in stages.items()}
    return times | {name: _time(stage, repeats, aligner.device, fresh) for name, stage in whole.items()}


@torch.no_grad()
def _time(stage, repeats: int, device: torch.device, before=lambda: None) -> dict[str, float]:
    """Of stage(before()), what `before` takes left out."""
    for _ in range(3):
        stage(before())
    times = []
    for _ in range(repeats):
        clock, given = StageClock(device), before()
        clock.measure("stage", stage, given)
        times.append(clock.total_ms["stage"])
    deciles = statistics.quantiles(times, n=10)
    return {
        "median_ms": round(statistics.median(times), 2),
        "p10_ms": round(deciles[0], 2),
        "p90_ms": round(deciles[-1], 2),
    }


def _show(row: dict[str, float]) -> str:
    return f"{row['median_ms']:.0f} ({row['p10_ms']:.0f}–{row['p90_ms']:.0f})"


def _busy_image(library: CadLibrary):
    """The image with the most detections among the first scenes of the synthetic set."""
    return max(
        synthetic_images(library, SyntheticSetConfig(scenes=12)), key=lambda image: len(image.detections)
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/latency.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
