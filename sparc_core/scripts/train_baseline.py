"""`sparc train-baseline`: train the methods that Multi-SPARC is compared with, on the same pictures."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from sparc_core.scripts import options
from sparc_core.scripts.errors import report_bad_input
from sparc_core.scripts.libraries import open_libraries
from sparc_core.scripts.training_run import RunOptions

app = typer.Typer(help="Train the methods to compare with.", no_args_is_help=True)

Regions = Annotated[Path, typer.Option(help="Folder of sparc train-baseline regions to train on.")]
UnseenRegions = Annotated[Path, typer.Option(help="Folder of regions to validate on.")]


@app.callback()
def _group() -> None:
    """Train the methods to compare with."""


@app.command()
def regions(
    pictures: options.Pictures,
    out: Annotated[Path, typer.Option(help="Folder for the regions; those that are there are kept.")],
    config: Annotated[Path | None, options.yaml_of("RegionStoreConfig")] = None,
    cad_library: options.CadLibraries = None,
    hold_out: options.HoldOut = None,
    limit: Annotated[int, typer.Option(help="Only the first pictures; 0: all.")] = 0,
    detector: Annotated[Path | None, typer.Option(help="Weights of our detector; default: shipped.")] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Weights of the depth network; default: shipped.")
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
) -> None:
    """Look at pictures with the frozen detector and depth network, once for all baselines.

    The CAD library is that of the pictures. Ctrl-C loses at most 64 pictures; call it again to go on.
    """
    from sparc_core.baselines.reader import SHIPPED_DETECTOR, RegionReader
    from sparc_core.config import from_dict, load_yaml
    from sparc_core.perception.depth_net import OurDepthNormals
    from sparc_core.perception.see import WEIGHTS
    from sparc_core.synth.picture_set import PictureFolder
    from sparc_core.training.region_store import RegionStoreConfig, RegionWriter

    with report_bad_input():
        settings = from_dict(RegionStoreConfig, load_yaml(config) if config else {}, str(config))
        folder = PictureFolder(pictures)
        used = RunOptions(out, None, device, threads, 0.0, False).use_device()
        files = {"detector": detector or SHIPPED_DETECTOR, "depth": depth or WEIGHTS / "depth.safetensors"}
        writer = RegionWriter(
            settings,
            RegionReader.load(files["detector"], used),
            OurDepthNormals.load(files["depth"], used),
            open_libraries(cad_library or ["procedural:0-79"], hold_out or []),
            ", ".join(f"{name} {sha256(file.read_bytes()).hexdigest()[:12]}" for name, file in files.items()),
        )
        new = writer.write(folder, out, limit)
    typer.echo(f"regions of {limit or len(folder)} pictures in {out}, {new} files of them new")
