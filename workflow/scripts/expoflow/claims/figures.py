"""The figures of the page of claims: means over several runs (seeds), with their spread."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from expoflow.claims.run import STYLES
from expoflow.claims.selection import WAYS
from expoflow.paths import Results
from expoflow.reporting.figures.style import (
    COLOURS,
    CYCLE,
    LABELS,
    LINES,
    MARKERS,
    STYLE,
    WIDTH,
    legend,
    line,
)

BAND = "Lines are means over the runs. Bands go from the smallest run to the largest."
# These are copied from one run, if it drew them; its config gives them these names.
OF_ONE_RUN = {
    "harder": "Reward, length and true quality against alpha for larger learning rates and more epochs (Figure 7).",
    "combinations": "Pairs whose second model was not aligned from the first (Figure 8).",
    "path": "Reward from the first model (alpha -1) through the second one (0) to the end of the grid (Figures 2 and 9).",
    "first_order": "Reward along alpha and the slope at alpha 0: the paper's Figure 3, measured.",
    "cosines": "Cosines between the deltas of pairs that begin with the same SFT model.",
    "plane": "Reward and true quality in the plane through three checkpoints: the paper's Figure 5, measured.",
}


def draw(runs: Sequence[Path], folder: Path) -> list[str]:
    """Draw the figures that the runs have the tables for, as PNGs in `folder`; return their names."""
    tables = {name: _read(runs, name) for name in ("alphas", "styles", "regrets")}
    drawn = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, (picture, _) in PICTURES.items():
        with plt.rc_context(STYLE):
            figure = picture(tables)
            if figure is not None:
                figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
                plt.close(figure)
                drawn.append(name)
    return drawn


def _read(runs: Sequence[Path], name: str) -> pd.DataFrame:
    """A table of all runs, with the column `run`."""
    parts = [pd.read_csv(Results.of(run).table(name), dtype={"pair": str}) for run in runs]
    return pd.concat(parts, keys=[run.name for run in runs], names=["run"]).reset_index("run")


Tables = dict[str, pd.DataFrame]


def _data(tables: Tables) -> Figure | None:
    """Reward, true quality and length against alpha, by share of the data."""
    labels = _labels(tables["styles"], "fraction")
    if not labels:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.3), layout="constrained")
    table = tables["alphas"][tables["alphas"]["alpha"] >= 0]
    for axis, quantity in zip(axes, ("reward", "quality", "length"), strict=True):
        _curves(axis, table, quantity, labels)
        axis.set_ylabel(LABELS[quantity])
    _legend(figure, {pair: f"{float(share):.0%} of the data" for pair, share in labels.items()})
    return figure


def _styles(tables: Tables) -> Figure | None:
    """Styles of responses against alpha, by share of the data."""
    labels = _labels(tables["styles"], "fraction")
    if not labels:
        return None
    figure, axes = plt.subplots(3, 3, figsize=(WIDTH, 5.0), sharex=True, layout="constrained")
    table = tables["styles"][tables["styles"]["alpha"] >= 0]
    for axis, style in zip(axes.flat, STYLES, strict=True):
        _curves(axis, table, style, labels)
        axis.set_title(style.replace("_", " "))
        if not axis.get_subplotspec().is_last_row():
            axis.set_xlabel("")
    for axis in axes[:, 0]:
        axis.set_ylabel("per response")
    _legend(figure, {pair: f"{float(share):.0%} of the data" for pair, share in labels.items()})
    return figure


def _bias(tables: Tables) -> Figure | None:
    """Length, reward and true quality against alpha, with and without the length bias."""
    labels = _labels(tables["styles"], "length_bias")
    if not labels:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.0), layout="constrained")
    alphas = tables["alphas"][tables["alphas"]["alpha"] >= 0]
    for axis, quantity in zip(axes, ("length", "reward", "quality"), strict=True):
        _curves(axis, alphas, quantity, labels)
        axis.set_ylabel(LABELS[quantity])
    _legend(figure, {pair: f"length bias {bias}" for pair, bias in labels.items()})
    return figure


def _overoptimised(tables: Tables) -> Figure | None:
    """Change of true quality minus change of reward from alpha 0 on, by kind of training."""
    alphas = tables["alphas"].dropna(subset=["quality"])
    kinds = tables["regrets"].drop_duplicates("pair").set_index("pair")["kind"]
    pairs = [pair for pair in kinds.index if kinds[pair] in ("fractions", "labelled")]
    if alphas.empty or not pairs:
        return None
    table = alphas[alphas["alpha"] >= 0].copy()
    zero = table[table["alpha"] == 0].set_index(["run", "pair"])[["quality", "reward"]]
    change = (
        table[["quality", "reward"]].to_numpy()
        - zero.loc[list(zip(table["run"], table["pair"], strict=True))].to_numpy()
    )
    table["excess"] = change[:, 0] - change[:, 1]
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
    _curves(axis, table, "excess", {pair: pair for pair in pairs})
    axis.axhline(0, color="black", lw=0.6)
    axis.set_ylabel("change of quality (points)\nminus change of reward (logit)")
    _legend(figure, {pair: pair for pair in pairs})
    return figure


def _regrets(tables: Tables) -> Figure | None:
    """Mean regret by kind of pair and way to choose, with whiskers over the runs."""
    table = tables["regrets"]
    if table.empty:
        return None
    ways = [way for way in WAYS if way in set(table["by"])]
    means = pd.concat([table.assign(kind="all pairs"), table])
    means = means.groupby(["kind", "by", "run"], sort=False)["regret"].mean().unstack("run")
    kinds = list(means.index.unique("kind"))
    figure, axis = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    colours = dict(zip(WAYS, (COLOURS["sft"], *CYCLE), strict=False))
    width = 0.8 / len(ways)
    for number, way in enumerate(ways):
        own = means.xs(way, level="by").reindex(kinds)
        heights = own.mean(axis=1)
        spread = [heights - own.min(axis=1), own.max(axis=1) - heights]
        places = np.arange(len(kinds)) + (number - (len(ways) - 1) / 2) * width
        axis.bar(
            places,
            heights,
            width,
            color=colours[way],
            yerr=spread,
            error_kw={"elinewidth": 0.8},
            label=WAYS[way],
        )
    axis.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds], rotation=30, ha="right")
    axis.set_ylabel("regret in true quality (points)")
    legend(figure, axis.get_legend_handles_labels()[0])
    return figure


PICTURES: dict[str, tuple[Callable[[Tables], Figure | None], str]] = {
    "data": (_data, f"Reward, true quality and length on the dev prompts against alpha (Figure 6). {BAND}"),
    "styles": (_styles, f"Features of a response, on average, against alpha. {BAND}"),
    "bias": (_bias, f"The same DPO with and without the annotator's length bias. {BAND}"),
    "overoptimised": (
        _overoptimised,
        f"Change in true quality minus change in reward, both from alpha 0. Reward is over-optimised where the curve falls. {BAND}",
    ),
    "regrets": (
        _regrets,
        "True quality lost relative to the best alpha of the grid, on the same responses, by criterion. Bars are means "
        "over the pairs of a kind. Whiskers go from the smallest run to the largest.",
    ),
}


def _labels(styles: pd.DataFrame, setting: str) -> dict[str, str]:
    """The setting of every pair that varies it, as text by pair, in ascending order."""
    own = styles[styles["setting"].astype(str).str.startswith(f"{setting} ")].drop_duplicates("pair")
    found = {row.pair: row.setting.removeprefix(f"{setting} ") for row in own.itertuples()}
    return dict(sorted(found.items(), key=lambda item: float(item[1])))


def _curves(axis: Axes, table: pd.DataFrame, quantity: str, labels: dict[str, str]) -> None:
    """Draw one line per pair, the mean over the runs, and a band over the runs."""
    for index, pair in enumerate(labels):
        own = table[table["pair"] == pair].groupby("alpha")[quantity].agg(["mean", "min", "max"])
        style = _style(index)
        axis.plot(own.index, own["mean"], **style)
        axis.fill_between(own.index, own["min"], own["max"], color=style["color"], alpha=0.2, lw=0)
    axis.set_xlabel("alpha (log. from 1)")
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xticks([0, 1, 10, 100])
    axis.minorticks_off()


def _style(index: int) -> dict:
    return {
        "color": CYCLE[index % len(CYCLE)],
        "ls": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
        "ms": 3,
        "lw": 1.0,
    }


def _legend(figure: Figure, labels: dict[str, str]) -> None:
    columns = min(5, 75 // (max(map(len, labels.values())) + 6))  # as many as fit side by side
    legend(figure, [line(label, **_style(index)) for index, label in enumerate(labels.values())], columns)
