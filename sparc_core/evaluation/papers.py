"""The papers' own figures on ScanNet25k, to stand beside ours. They are of other data and another machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """Percent, per scene: instance and class accuracy at 20 cm / 20° / 20 %; ms: for five objects. Per image:
    image_instance and image_class accuracy, AP^mesh at ρ = 0.5 (AP50, mean). None: not in the paper. All from
    Multi-SPARC's tables 1 and 2 (TitanXp)."""

    instance: float
    class_mean: float
    ms: float | None
    image_instance: float | None = None
    image_class: float | None = None
    ap50_mesh: float | None = None
    ap_mesh: float | None = None


PAPER_ROWS = {
    "Mask2CAD": PaperRow(16.7, 10.6, 60),  # with the 9-DoF head b5
    "ROCA": PaperRow(25.0, 18.4, 53, 18.4, 16.1, 10.8, 3.0),
    "SPARC": PaperRow(31.8, 24.9, 1925, 17.4, 15.9, 9.8, 3.0),
    "Multi-SPARC": PaperRow(40.3, 30.3, 864, 31.3, 28.1, 27.0, 11.5),
    "Multi-SPARC sparse": PaperRow(34.8, 26.7, 480),  # without pre-training, as the next
    "Multi-SPARC sparsest": PaperRow(33.4, 23.7, 448),
    "single-object Multi-SPARC": PaperRow(38.7, 30.2, 2320),
}


def paper_row(method: str) -> PaperRow | None:
    """The paper's row of a method's name; what stands in brackets at its end does not count
    ("Multi-SPARC (shipped)")."""
    return PAPER_ROWS.get(method.split(" (")[0].strip())
