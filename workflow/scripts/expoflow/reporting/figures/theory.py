"""Figures of the section `theory`: objectives and tangents, angles of deltas, planes of weights."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from expoflow.files.records import read_json
from expoflow.paths import ALPHAS, THEORY, of_pair
from expoflow.reporting.figures.style import (
    COLOURS,
    CYCLE,
    LABELS,
    MARKERS,
    VARIANTS,
    WIDTH,
    Drawing,
    legend,
    line,
    panels,
    patch,
)
from expoflow.theory.result import FirstOrder, Theory

OBJECTIVES = {"margin": "change of the\nmargin (nats)", "reward": "change of the\nreward (logit)"}
CELL = 0.36  # inches per cell of a matrix
LEVELS = 12  # levels of a contour plot


def first_order(plan: Drawing) -> Figure:
    """The paper's Figure 3, measured: J along alpha, and its tangent at alpha 0."""
    theories = {of_pair(file): read_json(file, Theory) for file in plan.inputs if file.name == THEORY}
    sweeps = {of_pair(file): pd.read_csv(file) for file in plan.inputs if file.name == ALPHAS}
    rows = [name for name in OBJECTIVES if any(name in each.first_order for each in theories.values())]
    figure, axes_of = panels({pair: plan.label(pair) for pair in plan.pairs}, rows)
    for pair, axes in axes_of.items():
        for row, axis in axes.items():
            if row in theories[pair].first_order:
                _curve(axis, theories[pair].first_order[row])
            if row == "reward":
                _gains(axis, sweeps[pair])
            axis.set_ylabel(OBJECTIVES[row] if axis.get_subplotspec().is_first_col() else "")
        axes[rows[-1]].set_xlabel("alpha")
    for pair, axes in axes_of.items():  # after the curves have set the scales
        for row, axis in axes.items():
            if row in theories[pair].first_order:
                _tangent(axis, theories[pair].first_order[row])
    handles = [
        line("measured, with interval", color=COLOURS["expo"], marker="o", ms=3),
        line("gradient times delta", color=COLOURS["aligned"], lw=1.2),
        patch("its interval", color=COLOURS["aligned"], alpha=0.25),
        line("first order holds to here", color="black", lw=0.8, ls=":"),
        *(
            [line("reward in the sweep", color=COLOURS["quality"], ls="--", marker="s", ms=3)]
            if "reward" in rows
            else []
        ),
    ]
    legend(figure, handles, 3)
    return figure


def _curve(axis: Axes, found: FirstOrder) -> None:
    """The changes of an objective, with their intervals, starting from 0."""
    curve = pd.DataFrame([point.model_dump() for point in found.curve])
    alphas, changes = [0, *curve["alpha"]], [0, *curve["change"]]
    axis.plot(alphas, changes, color=COLOURS["expo"], marker="o", ms=2.5, lw=1)
    band = [0, *curve["change_low"]], [0, *curve["change_high"]]
    axis.fill_between(alphas, *band, color=COLOURS["expo"], alpha=0.25, lw=0)


def _gains(axis: Axes, sweep: pd.DataFrame) -> None:
    shown = sweep[sweep["alpha"] >= 0]
    axis.plot(shown["alpha"], shown["gain"], color=COLOURS["quality"], ls="--", marker="s", ms=2.5, lw=1)


def _tangent(axis: Axes, found: FirstOrder) -> None:
    """The tangent and its interval, within the scales that the curves have set."""
    limits = axis.get_ylim()
    alphas = np.array([0, found.curve[-1].alpha])
    axis.plot(alphas, alphas * found.slope, color=COLOURS["aligned"], lw=1.2)
    band = alphas * found.slope_low, alphas * found.slope_high
    axis.fill_between(alphas, *band, color=COLOURS["aligned"], alpha=0.25, lw=0)
    if found.holds_to is not None:
        axis.axvline(found.holds_to, color="black", lw=0.8, ls=":")
    axis.set_ylim(limits)


def cosines(plan: Drawing) -> Figure:
    """Cosines between deltas over all weights, one matrix per SFT model."""
    table = pd.read_csv(plan.inputs[0], dtype={"sft": str, "pair_a": str, "pair_b": str})
    table = table[table["kind"] == "all"]
    families = {}
    for sft, rows in table.groupby("sft", sort=False):
        known = {*rows["pair_a"], *rows["pair_b"]}
        if len(names := [pair for pair in plan.pairs if pair in known]) > 1:
            families[sft] = names, rows
    sizes = [len(names) for names, _ in families.values()]
    figure, grid = plt.subplots(
        len(families),
        1,
        figsize=(min(WIDTH, CELL * max(sizes) + 2), CELL * sum(sizes) + 0.9 * len(families)),
        height_ratios=sizes,
        squeeze=False,
        layout="constrained",
    )
    for axis, (sft, (names, rows)) in zip(grid[:, 0], families.items(), strict=True):
        values = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
        for row in rows.itertuples():
            if row.pair_a in names and row.pair_b in names:
                values.loc[row.pair_a, row.pair_b] = values.loc[row.pair_b, row.pair_a] = row.cosine
        image = axis.imshow(values, cmap="Blues", vmin=min(0.0, np.nanmin(values)), vmax=1)
        for (i, j), value in np.ndenumerate(values.to_numpy()):
            dark = image.norm(value) > 0.6
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
        labels = [plan.label(pair) for pair in names]
        axis.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), labels)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        figure.colorbar(image, ax=axis, label="cosine", shrink=0.9)
        if len(families) > 1:
            axis.set_title(f"from {sft}")
    return figure


def plane(plan: Drawing) -> Figure:
    """The paper's Figure 5, measured: reward and quality around theta0.

    The rays go from theta0 through the two aligned models.
    """
    table = pd.read_csv(plan.inputs[0])
    sweeps = [pd.read_csv(file) for file in plan.inputs[1:]]
    quantities = ["reward", *(["quality"] if table["quality"].notna().all() else [])]
    sides = np.ptp(table[["x", "y"]].to_numpy(), axis=0)
    width = (WIDTH - 0.5) / len(quantities) - 0.1
    height = min(width * sides[1] / sides[0], 4.5) + 1.3
    figure, grid = plt.subplots(
        1, len(quantities), figsize=(WIDTH, height), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, quantity in zip(grid[0], quantities, strict=True):
        filled = axis.tricontourf(table["x"], table["y"], table[quantity], levels=LEVELS, cmap="cividis")
        axis.plot(table["x"], table["y"], ".", ms=4, color="white", mec="black", mew=0.4, clip_on=False)
        figure.colorbar(
            filled, ax=axis, location="bottom", label=LABELS[quantity].replace("\n", " "), shrink=0.9
        )
        axis.set_aspect("equal")
        axis.set_xlabel("distance along the first delta")
        ends = table["x"].min(), table["x"].max(), table["y"].min(), table["y"].max()
        for number, sweep in enumerate(sweeps):
            _ray(axis, np.array(_place(table, number)), sweep, number, ends)
        _, marker, _ = VARIANTS["sft"]
        axis.plot([0], [0], marker, ms=5, color="white", mec="black", zorder=5)
        axis.set(xlim=ends[:2], ylim=ends[2:])  # a chosen alpha may lie outside
    grid[0, 0].set_ylabel("distance across")
    handles = [
        line("SFT", marker=VARIANTS["sft"][1], ms=5, color="white", mec="black", ls=""),
        *(
            line(plan.label(pair), marker=MARKERS[number], ms=5, color=CYCLE[number], mec="black", ls="-")
            for number, pair in enumerate(plan.pairs)
        ),
        line("chosen alpha", marker="*", ms=9, color="white", mec="black", ls=""),
        line("measured", marker=".", ms=5, color="white", mec="black", mew=0.4, ls=""),
    ]
    legend(figure, handles, 5)
    return figure


def _place(table: pd.DataFrame, number: int) -> tuple[float, float]:
    """(x, y) of the first or the second aligned model."""
    row = table[(table["a"] == 1 - number) & (table["b"] == number)].iloc[0]
    return row["x"], row["y"]


def _ray(axis: Axes, theta1: np.ndarray, sweep: pd.DataFrame, number: int, ends: tuple[float, ...]) -> None:
    """Draw a ray from theta0 through an aligned model to the edge, with the chosen alpha."""
    left, right, bottom, top = ends
    limits = [(right if theta1[0] > 0 else left) / theta1[0] if theta1[0] else np.inf]
    limits.append((top if theta1[1] > 0 else bottom) / theta1[1] if theta1[1] else np.inf)
    end = min(limits) * theta1
    style = {"color": CYCLE[number], "mec": "black"}
    axis.plot([0, end[0]], [0, end[1]], color="white", lw=2.4)
    axis.plot([0, end[0]], [0, end[1]], color=CYCLE[number], lw=1.2)
    axis.plot(*theta1, MARKERS[number], ms=5, **style, zorder=4)
    chosen = (1 + sweep.loc[sweep["chosen"] == 1, "alpha"].iloc[0]) * theta1
    axis.plot(*chosen, "*", ms=9, color="white", mec="black", zorder=5)
