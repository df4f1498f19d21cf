"""Reward, true quality and length against alpha, from the pairs' alphas.csv.

Without rewards, the criterion that chose alpha takes their place.
"""

from io import StringIO

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from expoflow.columns import MEASURED
from expoflow.files.records import csv_text, read_json
from expoflow.paths import of_pair
from expoflow.reporting.figures.style import (
    COLOURS,
    CYCLE,
    LABELS,
    LINES,
    MARKERS,
    PAPER,
    VARIANTS,
    WIDTH,
    Drawing,
    legend,
    line,
    panels,
    patch,
)
from expoflow.reporting.words import short_certificate
from expoflow.results import Certificate
from expoflow.selection.criteria import CRITERIA

DRAWN = ("pair", "alpha", "chosen", "reward")  # the columns that every figure needs
LONG = 5  # a path that goes beyond this alpha has a logarithmic axis
WIDE = 20  # ratio of the largest to the smallest alpha; beyond it the axis is logarithmic


def sweep(plan: Drawing) -> Figure:
    """Reward and length against alpha, and true quality if it is known; one column per pair.

    Without rewards, the criterion that chose alpha takes their place.
    """
    table = _read(plan)
    rows = _quantities(table)
    figure, axes_of = panels(
        {pair: plan.label(pair) + _certificate(plan, pair, table) for pair in plan.pairs}, rows
    )
    for pair, axes in axes_of.items():
        data = table[(table["pair"] == pair) & (table["alpha"] >= 0)]
        best = data[data["chosen"] == 1]
        for row, axis in axes.items():
            colour = COLOURS.get(row, COLOURS["expo"])
            axis.plot(data["alpha"], data[row], marker="o", ms=3, color=colour)
            aligned = data.loc[data["alpha"] == 0, row].iloc[0]
            if row in CRITERIA:
                low, high = (aligned + data[f"{CRITERIA[row].interval}_{end}"] for end in ("low", "high"))
                axis.fill_between(data["alpha"], low, high, color=colour, alpha=0.25, lw=0)
            axis.axhline(aligned, color=COLOURS["aligned"], lw=0.8, ls=":")
            axis.plot(best["alpha"], best[row], marker="*", ms=9, color="black", ls="", zorder=3)
            axis.set_ylabel(LABELS[row] if axis.get_subplotspec().is_first_col() else "")
        _mark_alpha(plan, pair, axes[rows[0]])
        axes[rows[-1]].set_xlabel("alpha")
    handles = [
        line("chosen alpha", color="black", marker="*", ms=8, ls=""),
        line("aligned (alpha 0)", color=COLOURS["aligned"], lw=0.8, ls=":"),
    ]
    words = "interval of the gain" if "reward" in rows else "interval of the change"
    handles.append(patch(words, color=COLOURS["expo"], alpha=0.25))
    legend(figure, [*handles, *_alpha_handle(plan, plan.pairs)])
    return figure


def curves(plan: Drawing) -> Figure:
    """The paper's Figures 6 to 8: reward and length against alpha.

    The pairs of a group share their panels.
    """
    table = _read(plan)
    groups = plan.config.groups or {"": plan.pairs}
    figure = plt.figure(figsize=(WIDTH, 0.1), layout="constrained")
    parts = figure.subfigures(len(groups), squeeze=False)[:, 0]
    height = 0.0
    for part, (title, pairs) in zip(parts, groups.items(), strict=True):
        shown = table["pair"].isin(pairs) & (table["alpha"] >= 0)
        height += _group(plan, part, title, table[shown], pairs)
    figure.set_size_inches(WIDTH, height)
    return figure


def _group(plan: Drawing, part: SubFigure, title: str, table: pd.DataFrame, pairs: list[str]) -> float:
    """Draw the panels of a group; return the height in inches that they need."""
    quantities = _quantities(table)
    marked = [pair for pair in pairs if plan.published(pair, "expo", "reward") is not None]
    apart = marked and not plan.paper_rewards
    names = [*quantities, *(["paper"] if apart else [])]
    order = (*CRITERIA, "length", "quality", "paper")
    names = [name for name in order if name in names]
    rows = -(-len(names) // 2)
    grid = part.subplots(rows, 2, squeeze=False).flatten()
    axes = dict(zip(names, grid, strict=False))
    for axis in grid[len(names) :]:
        axis.set_axis_off()
    handles = []
    for index, pair in enumerate(pairs):
        data = table[table["pair"] == pair]
        style = {"color": CYCLE[index % len(CYCLE)], "ls": LINES[index % len(LINES)], "lw": 1.2}
        style |= {"marker": MARKERS[index % len(MARKERS)], "ms": 4}
        for name in quantities:
            _curve(axes[name], data, name, style)
        _mark_alpha(plan, pair, axes[names[0]], mec=style["color"])
        if pair in marked:
            joined = {"ls": ":", "lw": 0.8} if apart else {"ls": ""}
            _mark_rewards(plan, pair, axes["paper" if apart else "reward"], style | joined)
        handles.append(line(plan.label(pair), **style))
    alphas = table["alpha"].tolist() + [plan.published(pair, "expo", "alpha") for pair in pairs]
    for name, axis in axes.items():
        axis.set_ylabel("paper's reward (logit)" if name == "paper" else LABELS[name])
        _alpha_axis(axis, [alpha for alpha in alphas if alpha is not None])
        axis.set_xlim(axes[names[0]].get_xlim())
    handles.append(line("chosen alpha", color="black", marker="*", ms=8, ls=""))
    if "reward" in names:
        handles.append(
            plt.errorbar([], [], [], color="black", lw=0, elinewidth=0.8, label="interval of the mean")
        )
    if marked:
        handles.append(line("reward in the paper", marker="o", **PAPER, ms=6))
    handles += _alpha_handle(plan, pairs)
    legend(part, handles, 3, title)
    return 1.75 * rows + 0.17 * (-(-len(handles) // 3) + bool(title)) + 0.2


def _curve(axis: Axes, data: pd.DataFrame, name: str, style: dict) -> None:
    """One pair's curve, with the interval of the mean reward, and the chosen alpha."""
    axis.plot(data["alpha"], data[name], **style)
    if name == "reward":
        distances = [data[name] - data["reward_low"], data["reward_high"] - data[name]]
        axis.errorbar(data["alpha"], data[name], distances, ls="", elinewidth=0.8, color=style["color"])
    best = data[data["chosen"] == 1]
    axis.plot(
        best["alpha"], best[name], marker="*", ms=10, mec="black", color=style["color"], ls="", zorder=4
    )


def _mark_rewards(plan: Drawing, pair: str, axis: Axes, style: dict) -> None:
    """The paper's rewards at alpha 0 and at the paper's chosen alpha, as hollow marks."""
    points = [(0.0, plan.published(pair, "aligned", "reward"))]
    points.append((plan.published(pair, "expo", "alpha"), plan.published(pair, "expo", "reward")))
    alphas, rewards = zip(*points, strict=True)
    axis.plot(alphas, rewards, **style | {"ms": 7, "mfc": "none"}, zorder=5)


def path(plan: Drawing) -> Figure:
    """The paper's Figure 2: reward from SFT (alpha -1) through aligned (0) to the grid's end."""
    table = _read(plan)
    figure, axes_of = panels({pair: plan.label(pair) for pair in plan.pairs}, ["reward"])
    long = table["alpha"].max() > LONG
    figure.supxlabel("alpha (logarithmic from 1 on)" if long else "alpha", fontsize="medium")
    for pair, axes in axes_of.items():
        axis, data = axes["reward"], table[table["pair"] == pair]
        axis.axvspan(-1, 0, color="0.9", lw=0)
        for part, variant in ((data[data["alpha"] <= 0], "aligned"), (data[data["alpha"] >= 0], "expo")):
            axis.plot(part["alpha"], part["reward"], marker="o", ms=2.5, color=COLOURS[variant])
            band = (part["alpha"], part["reward_low"], part["reward_high"])
            axis.fill_between(*band, color=COLOURS[variant], alpha=0.25, lw=0)
        chosen = data.loc[data["chosen"] == 1, "alpha"].iloc[0]
        for variant, alpha in (("sft", -1), ("aligned", 0), ("expo", chosen)):
            point = data[data["alpha"] == alpha]
            axis.plot(point["alpha"], point["reward"], **_variant(variant), zorder=3)
        if long:
            _logarithmic(axis, 1, [-1, 0, *_ticks(1, data["alpha"].max(), 3)])
        axis.set_ylabel(LABELS["reward"] if axis.get_subplotspec().is_first_col() else "")
    words = {"sft": "SFT (alpha -1)", "aligned": "aligned (0)", "expo": "ExPO (chosen)"}
    handles = [line(label, **_variant(variant)) for variant, label in words.items()]
    handles += [patch("interpolation", color="0.9"), patch("interval of the mean", color="0.5", alpha=0.4)]
    legend(figure, handles, 3)
    return figure


def _variant(variant: str) -> dict:
    marker = "*" if variant == "expo" else VARIANTS[variant][1]
    size = 8 if variant == "expo" else 5
    return {"marker": marker, "ms": size, "ls": "", "color": COLOURS[variant], "mec": "black", "mew": 0.6}


def _certificate(plan: Drawing, pair: str, table: pd.DataFrame) -> str:
    """Lines below the pair's name: its gain on held-out prompts, or that there are none."""
    places = [file for file in plan.inputs if file.suffix == ".json" and of_pair(file) == pair]
    chosen = table.loc[(table["pair"] == pair) & (table["chosen"] == 1), "alpha"].iloc[0]
    found = read_json(*places, Certificate) if places else None
    if found is None or float(found.alpha) != chosen or found.alpha == "0":
        return ""
    if not found.held_out:
        return "\njudged on the prompts\nthat chose alpha"
    return f"\n{short_certificate(found)}" + ("" if found.certified else "\nnot certified")


def _read(plan: Drawing) -> pd.DataFrame:
    texts = [StringIO(csv_text(file, DRAWN)) for file in plan.inputs if file.suffix == ".csv"]
    return pd.concat([pd.read_csv(text, dtype={"pair": str}) for text in texts], ignore_index=True)


def _quantities(table: pd.DataFrame) -> list[str]:
    """The quantities to draw: rewards or, without them, the criterion that chose alpha."""
    known = [name for name in (*CRITERIA, "quality", "length") if table[name].notna().any()]
    return [name for name in known if "reward" not in known or name not in MEASURED]


def _mark_alpha(plan: Drawing, pair: str, axis: Axes, **style: str) -> None:
    """The alpha that the paper chose for the same model, on the upper edge."""
    if (alpha := plan.published(pair, "expo", "alpha")) is not None:
        style = PAPER | {"marker": "v", "ms": 6, "clip_on": False} | style
        axis.plot([alpha], [1], transform=axis.get_xaxis_transform(), **style)


def _alpha_handle(plan: Drawing, pairs: list[str]) -> list[Artist]:
    if all(plan.published(pair, "expo", "alpha") is None for pair in pairs):
        return []
    return [line("alpha in the paper", marker="v", ms=6, **PAPER)]


def _alpha_axis(axis: Axes, alphas: list[float]) -> None:
    """Make the axis linear, or logarithmic from the smallest alpha on if grids differ much."""
    positive = [alpha for alpha in alphas if alpha > 0]
    if not positive or max(positive) <= WIDE * min(positive):
        axis.set_xlabel("alpha")
        axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        return
    _logarithmic(axis, min(positive), [0, *_ticks(min(positive), max(positive), 7)])
    axis.set_xlabel(f"alpha (logarithmic from {min(positive):g} on)")


def _logarithmic(axis: Axes, linear: float, ticks: list[float]) -> None:
    """Make an axis logarithmic beyond `linear` on both sides, with plain numbers at `ticks`."""
    axis.set_xscale("symlog", linthresh=linear, linscale=0.5)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times the powers of ten between two alphas.

    If there are more than `most`, they are the powers alone.
    """
    for digits in ((1, 2, 5), (1,)):
        values = [float(f"{digit}e{exponent}") for exponent in range(-6, 7) for digit in digits]
        ticks = [value for value in values if low <= value <= high * 1.01]
        if len(ticks) <= most:
            break
    return ticks
