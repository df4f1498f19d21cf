"""Figures, drawn from the result files alone; one function a figure, small multiples by pair."""

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from expoflow.records import Scored, read_jsonl

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = {
    "sft": "#999999",
    "aligned": "#0072B2",
    "expo": "#D55E00",
    "quality": "#009E73",
    "length": "#56B4E9",
}
LABELS = {"sft": "SFT", "aligned": "aligned", "expo": "ExPO"}
COLUMNS = 4  # panels side by side
NARROWEST = 4.2  # inches
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "expoflow",
    "svg.fonttype": "none",
}


def draw(figure: str, alphas: Path, generations: list[Path], outputs: list[Path]) -> None:
    """Draw `figure` into `outputs`, whose suffixes say the formats.

    `alphas` is results/alphas.csv; `generations` are the scored generations of every pair's variants on
    the benchmarks (results/pairs/{pair}/benchmarks/{variant}/{benchmark}.generations.jsonl).
    """
    with plt.rc_context(STYLE):
        table = pd.read_csv(alphas, dtype={"pair": str})
        drawn = FIGURES[figure](table, generations)
        for output in outputs:
            metadata = {"Date": None} if output.suffix == ".svg" else None
            drawn.savefig(output, dpi=200, metadata=metadata)
        plt.close(drawn)


def sweep(table: pd.DataFrame, generations: list[Path]) -> Figure:
    """The paper's Figure 6: reward and length against alpha, and true quality where it is known."""
    rows = ["reward", *(["quality"] if table["quality"].notna().any() else []), "length"]
    labels = {"reward": "reward", "quality": "true quality", "length": "length (tokens)"}
    figure, panels = _panels(list(dict.fromkeys(table["pair"])), rows)
    for pair, axes in panels.items():
        data = table[(table["pair"] == pair) & (table["alpha"] >= 0)]
        best = data[data["chosen"] == 1]
        for row, axis in axes.items():
            colour = COLOURS.get(row, COLOURS["expo"])
            axis.plot(data["alpha"], data[row], marker="o", markersize=3, color=colour)
            aligned = data[row].iloc[0]
            if row == "reward":
                low, high = aligned + data["gain_low"], aligned + data["gain_high"]
                axis.fill_between(data["alpha"], low, high, color=colour, alpha=0.25, lw=0)
            axis.axhline(aligned, color=COLOURS["aligned"], lw=0.8, ls=":")
            axis.plot(best["alpha"], best[row], marker="*", markersize=10, color="black", ls="", zorder=3)
            axis.set_ylabel(labels[row] if axis.get_subplotspec().is_first_col() else "")
        axis.set_xlabel("alpha")
    _legend(
        figure,
        [
            plt.Line2D([], [], color="black", marker="*", markersize=9, ls="", label="chosen alpha"),
            plt.Line2D([], [], color=COLOURS["aligned"], lw=0.8, ls=":", label="aligned (alpha 0)"),
            plt.Rectangle((0, 0), 1, 1, color=COLOURS["expo"], alpha=0.25, label="interval of the gain"),
        ],
    )
    return figure


def path(table: pd.DataFrame, generations: list[Path]) -> Figure:
    """The paper's Figure 2: reward from SFT (alpha -1) through the aligned model (0) to the grid's end."""
    figure, panels = _panels(list(dict.fromkeys(table["pair"])), ["reward"])
    for pair, axes in panels.items():
        axis, data = axes["reward"], table[table["pair"] == pair]
        axis.axvspan(-1, 0, color="0.92", lw=0)
        for part, variant in ((data[data["alpha"] <= 0], "aligned"), (data[data["alpha"] >= 0], "expo")):
            axis.plot(part["alpha"], part["reward"], marker="o", markersize=3, color=COLOURS[variant])
            axis.fill_between(
                part["alpha"],
                part["reward_low"],
                part["reward_high"],
                color=COLOURS[variant],
                alpha=0.25,
                lw=0,
            )
        chosen = data.loc[data["chosen"] == 1, "alpha"].iloc[0]
        for variant, alpha, marker in (("sft", -1, "s"), ("aligned", 0, "D"), ("expo", chosen, "*")):
            point = data[data["alpha"] == alpha]
            size = 11 if marker == "*" else 6
            axis.plot(
                point["alpha"], point["reward"], marker, color=COLOURS[variant], ms=size, mec="black", mew=0.6
            )
        axis.set_xlabel("alpha")
        axis.set_ylabel("reward" if axis.get_subplotspec().is_first_col() else "")
    markers = [
        ("sft", "s", "SFT (alpha -1)"),
        ("aligned", "D", "aligned (0)"),
        ("expo", "*", "ExPO (chosen)"),
    ]
    handles = [
        plt.Line2D(
            [], [], marker=marker, ls="", color=COLOURS[variant], mec="black", mew=0.6, ms=7, label=label
        )
        for variant, marker, label in markers
    ]
    _legend(figure, [*handles, plt.Rectangle((0, 0), 1, 1, color="0.92", label="interpolation")])
    return figure


def histograms(table: pd.DataFrame, generations: list[Path]) -> Figure:
    """The paper's Appendix C: rewards of sft, aligned and expo on the benchmark's prompts."""
    rewards: dict[str, dict[str, np.ndarray]] = {}
    for file in generations:
        pair, variant = file.parts[-4], file.parts[-2]
        rewards.setdefault(pair, {})[variant] = np.array([row.reward for row in read_jsonl(file, Scored)])
    figure, panels = _panels(list(rewards), ["share of responses"])
    for pair, axes in panels.items():
        axis = axes["share of responses"]
        bins = np.histogram_bin_edges(np.concatenate(list(rewards[pair].values())), bins=24)
        for variant, values in rewards[pair].items():
            weights = np.full(len(values), 1 / len(values))
            axis.hist(values, bins, weights=weights, histtype="step", color=COLOURS[variant], lw=1.3)
            axis.axvline(values.mean(), color=COLOURS[variant], lw=1, ls="--")
        axis.set_xlabel("reward")
        axis.set_ylabel("share of responses" if axis.get_subplotspec().is_first_col() else "")
    handles = [plt.Line2D([], [], color=COLOURS[variant], label=label) for variant, label in LABELS.items()]
    _legend(figure, [*handles, plt.Line2D([], [], color="black", lw=1, ls="--", label="mean")])
    return figure


FIGURES: dict[str, Callable[[pd.DataFrame, list[Path]], Figure]] = {
    "sweep": sweep,
    "path": path,
    "histograms": histograms,
}


def _panels(pairs: list[str], rows: list[str]) -> tuple[Figure, dict[str, dict[str, Axes]]]:
    """A figure, and by pair and row the axes: a block of `rows` for every COLUMNS pairs."""
    columns = min(COLUMNS, max(len(pairs), 1))
    blocks = max(-(-len(pairs) // columns), 1)
    height = (1.5 * len(rows) + 0.4) * blocks + 0.5
    figure, grid = plt.subplots(
        blocks * len(rows),
        columns,
        figsize=(max(1.9 * columns + 0.4, NARROWEST), height),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    panels = {}
    for index, (block, column) in enumerate(_places(blocks, columns)):
        axes = {row: grid[block * len(rows) + offset, column] for offset, row in enumerate(rows)}
        if index >= len(pairs):
            for axis in axes.values():
                axis.set_axis_off()
            continue
        axes[rows[0]].set_title(pairs[index])
        for axis in axes.values():
            axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        panels[pairs[index]] = axes
    return figure, panels


def _places(blocks: int, columns: int) -> Iterator[tuple[int, int]]:
    return ((block, column) for block in range(blocks) for column in range(columns))


def _legend(figure: Figure, handles: list) -> None:
    columns = len(handles) if figure.get_figwidth() > 5 else 2  # as many as there is room for
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.2, handletextpad=0.5
    )
