"""What all figures share: the description of a drawing, colours, panels, legends."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from expoflow.config.figures import FigureConfig
from expoflow.selection.criteria import CRITERIA

# Okabe and Ito's colours, which colour-blind readers can distinguish. Markers and lines distinguish
# them in black and white.
COLOURS = {
    "sft": "#999999",
    "aligned": "#0072B2",
    "expo": "#D55E00",
    "quality": "#009E73",
    "length": "#56B4E9",
}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
VARIANTS = {"sft": ("SFT", "s", ":"), "aligned": ("aligned", "D", "--"), "expo": ("ExPO", "^", "-")}
LABELS = {
    **{name: each.label for name, each in CRITERIA.items()},
    "quality": "true quality\n(points)",
    "length": "length (tokens)",
}
PAPER = {"mfc": "none", "mec": "black", "mew": 1.0, "ls": "", "color": "black"}  # the paper's own marks
WIDTH = 5.5  # inches: the width of the paper's column; the smallest type then has 8 points
COLUMNS = 4  # panels side by side
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "axes.ymargin": 0.1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a label is plain text: a dollar sign does not begin a formula
    "svg.hashsalt": "expoflow",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Drawing:
    """The description of a figure.

    `config` names every pair. `inputs` are the result files that the kind reads. `paper` has
    published values by pair, variant and quantity. `paper_rewards` says whether the paper's rewards
    have the unit of this run's, because the reward model is the paper's.
    """

    config: FigureConfig
    inputs: Sequence[Path]
    paper: Mapping[str, Mapping[str, Mapping[str, float]]]
    paper_rewards: bool = False

    @classmethod
    def parse(cls, config: str, inputs: Iterable[str], paper: str, paper_rewards: bool) -> Self:
        """Make a drawing from a rule's parameters, which are JSON."""
        figure = FigureConfig.model_validate_json(config)
        return cls(
            figure.model_copy(update={"pairs": figure.named()}),
            [Path(path) for path in inputs],
            json.loads(paper),
            paper_rewards,
        )

    @property
    def pairs(self) -> list[str]:
        """The pairs, in the order in which they are shown."""
        return self.config.pairs or []

    def label(self, pair: str) -> str:
        """The label of the pair."""
        return self.config.labels.get(pair, pair)

    def published(self, pair: str, variant: str, quantity: str) -> float | None:
        """The paper's number, if it has one."""
        return self.paper.get(pair, {}).get(variant, {}).get(quantity)


def panels(titles: Mapping[str, str], rows: Sequence[str]) -> tuple[Figure, dict[str, dict[str, Axes]]]:
    """A figure, and its axes by key of `titles` and row, in a block of `rows` per COLUMNS titles.

    The panels of a single block share their scales. With several blocks every panel has its own,
    because so many pairs differ more from each other than by what the figure shows.
    """
    keys = list(titles)
    columns = min(COLUMNS, len(keys))
    blocks = -(-len(keys) // columns)
    height = 1.15 if len(rows) > 1 else 1.4
    figure, grid = plt.subplots(
        blocks * len(rows),
        columns,
        figsize=(WIDTH, (height * len(rows) + 0.35) * blocks + 0.5),
        squeeze=False,
        sharey="row" if blocks == 1 else False,
        layout="constrained",
    )
    found = {}
    for index in range(blocks * columns):
        block, column = divmod(index, columns)
        axes = {row: grid[block * len(rows) + offset, column] for offset, row in enumerate(rows)}
        if index >= len(keys):
            for axis in axes.values():
                axis.set_axis_off()
            continue
        axes[rows[0]].set_title(titles[keys[index]], pad=8)
        for axis in axes.values():
            axis.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        found[keys[index]] = axes
    return figure, found


def legend(figure: Any, handles: Sequence[Artist], columns: int = 4, title: str | None = None) -> None:
    """One legend above all panels of a figure or subfigure, with a title above it."""
    figure.legend(
        handles=list(handles),
        loc="outside upper center",
        ncols=min(len(handles), columns),
        columnspacing=1.2,
        handletextpad=0.5,
        title=title,
    )


def line(label: str, **style: Any) -> Artist:
    """A line or marker for a legend."""
    return plt.Line2D([], [], label=label, **style)


def patch(label: str, **style: Any) -> Artist:
    """A filled area for a legend."""
    return plt.Rectangle((0, 0), 1, 1, label=label, **style)
