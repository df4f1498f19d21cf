"""Figures, drawn from the result files alone; one function a kind of figure, small multiples by pair."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from expoflow.reporting.figures.benchmarks import bars, histograms
from expoflow.reporting.figures.style import STYLE, Drawing
from expoflow.reporting.figures.sweeps import curves, path, sweep
from expoflow.reporting.figures.theory import cosines, first_order, plane

KINDS: dict[str, Callable[[Drawing], Figure]] = {
    "sweep": sweep,
    "curves": curves,
    "path": path,
    "histograms": histograms,
    "bars": bars,
    "first_order": first_order,
    "cosines": cosines,
    "plane": plane,
}


def draw(plan: Drawing, outputs: list[Path]) -> None:
    """Draw `plan` into `outputs`, whose suffixes say the formats."""
    with plt.rc_context(STYLE):
        figure = KINDS[plan.config.kind](plan)
        for output in outputs:
            metadata = {"Date": None} if output.suffix == ".svg" else None
            figure.savefig(output, dpi=300, metadata=metadata)
        plt.close(figure)
