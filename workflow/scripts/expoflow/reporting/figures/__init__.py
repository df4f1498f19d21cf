"""Figures, drawn from the result files alone: one function per kind, small multiples by pair.

A new kind is an entry of `config.figures.KINDS` and a function in a module here. See
docs/contributing.md.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from expoflow.config.figures import KINDS
from expoflow.reporting.figures.style import STYLE, Drawing


def drawer(kind: str) -> Callable[[Drawing], Figure]:
    """The function that draws a kind of figure."""
    module = importlib.import_module(f"expoflow.reporting.figures.{KINDS[kind].module}")
    return getattr(module, kind)


def draw(plan: Drawing, outputs: list[Path], mark: str = "") -> None:
    """Draw `plan` into `outputs`, in the formats of their suffixes, with `mark` across it."""
    with plt.rc_context(STYLE):
        figure = drawer(plan.config.kind)(plan)
        if mark:
            place = {"rotation": 15, "ha": "center", "va": "center"}
            figure.text(0.5, 0.5, mark, fontsize=11, color="red", alpha=0.5, **place)
        for output in outputs:
            metadata = {"Date": None} if output.suffix == ".svg" else None
            figure.savefig(output, dpi=300, metadata=metadata)
        plt.close(figure)
