"""Variants side by side on benchmarks: histograms of rewards, and bar charts."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import ConfigDict

from expoflow.errors import DataError
from expoflow.files.records import Record, read_json, read_jsonl
from expoflow.paths import of_benchmark
from expoflow.reporting.figures.style import (
    COLOURS,
    LABELS,
    PAPER,
    VARIANTS,
    WIDTH,
    Drawing,
    legend,
    line,
    panels,
    patch,
)
from expoflow.results import BenchmarkResult, Metric

HATCHES = {"sft": "....", "aligned": "", "expo": "////"}
METRICS = {
    "reward.reward": LABELS["reward"],
    "reward.quality": LABELS["quality"],
    "reward.length": LABELS["length"],
    "reward.accuracy": "correct answers (share)",
    "alpaca_eval.win_rate": "AlpacaEval 2.0\nwin rate (%)",
    "alpaca_eval.lc_win_rate": "AlpacaEval 2.0\nLC win rate (%)",
    "mt_bench.score": "MT-Bench\nscore (1 to 10)",
    "open_llm.average": "Open LLM Leaderboard\naverage (share)",
}
NORMAL = 1.96  # half the width of a 95 % interval, in standard errors


class Rewarded(Record):
    """The reward of a scored response."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    reward: float


def histograms(plan: Drawing) -> Figure:
    """The paper's Appendix C: rewards of the variants on the prompts of a benchmark.

    These prompts did not choose alpha.
    """
    rewards = {
        (pair, variant): np.array([row.reward for row in read_jsonl(file, Rewarded)])
        for (pair, variant), file in _by_variant(plan).items()
    }
    variants = [variant for variant in VARIANTS if variant in plan.config.variants]
    figure, axes_of = panels({pair: plan.label(pair) for pair in plan.pairs}, ["responses"])
    for pair, axes in axes_of.items():
        axis = axes["responses"]
        values = {variant: rewards[pair, variant] for variant in variants}
        bins = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=20)
        for variant, found in values.items():
            _, marker, dashes = VARIANTS[variant]
            style = {"color": COLOURS[variant], "ls": dashes, "lw": 1.2}
            axis.hist(found, bins, weights=np.full(len(found), 1 / len(found)), histtype="step", **style)
            place = {"transform": axis.get_xaxis_transform(), "clip_on": False, "zorder": 3}
            axis.plot(
                [found.mean()], [0], marker, ms=4, color=COLOURS[variant], mec="black", mew=0.6, **place
            )
        axis.set_xlabel(LABELS["reward"])
        axis.set_ylabel("share of responses" if axis.get_subplotspec().is_first_col() else "")
    handles = [
        line(label, color=COLOURS[variant], ls=dashes, marker=marker, ms=5, mec="black", mew=0.6)
        for variant, (label, marker, dashes) in VARIANTS.items()
        if variant in variants
    ]
    legend(figure, handles, title="marks on the axis: means")
    return figure


def bars(plan: Drawing) -> Figure:
    """The paper's Figures 1 and 4: metrics with 95 % intervals, one panel per metric."""
    metrics = plan.config.metrics or []
    variants = [variant for variant in VARIANTS if variant in plan.config.variants]
    results = {of_benchmark(file): read_json(file, BenchmarkResult) for file in plan.inputs}
    height = 0.17 * len(variants) * len(plan.pairs) + 0.1 * len(plan.pairs) + 1
    figure, grid = plt.subplots(
        1, len(metrics), figsize=(WIDTH, height), sharey=True, squeeze=False, layout="constrained"
    )
    width, marked = 0.8 / len(variants), False
    for axis, metric in zip(grid[0], metrics, strict=True):
        benchmark = metric.partition(".")[0]
        for offset, variant in enumerate(variants):
            found = [_metric(results[pair, variant, benchmark], metric) for pair in plan.pairs]
            places = np.arange(len(plan.pairs)) + (offset - (len(variants) - 1) / 2) * width
            axis.barh(
                places,
                [value.value for value in found],
                width,
                xerr=[
                    np.nan if value.standard_error is None else NORMAL * value.standard_error
                    for value in found
                ],
                color=COLOURS[variant],
                hatch=HATCHES[variant],
                edgecolor="white",
                error_kw={"elinewidth": 0.8, "capsize": 1.5},
            )
            for place, pair in zip(places, plan.pairs, strict=True):
                if (published := plan.published(pair, variant, metric)) is not None:
                    axis.plot([published], [place], marker="D", ms=4, **PAPER, zorder=4)
                    marked = True
        axis.set_xlabel(METRICS.get(metric, metric.replace(".", " ").replace("_", " ")))
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    grid[0, 0].set_yticks(range(len(plan.pairs)), [plan.label(pair) for pair in plan.pairs])
    grid[0, 0].set_ylim(len(plan.pairs) - 0.4, -0.6)  # the first pair at the top
    handles = [
        patch(VARIANTS[variant][0], fc=COLOURS[variant], hatch=HATCHES[variant], ec="white")
        for variant in variants
    ]
    handles.append(plt.errorbar([], [], xerr=[], color="black", lw=0, elinewidth=0.8, label="95 % interval"))
    legend(figure, [*handles, *([line("in the paper", marker="D", ms=4, **PAPER)] if marked else [])], 5)
    return figure


def _by_variant(plan: Drawing) -> dict[tuple[str, str], Path]:
    return {of_benchmark(file)[:2]: file for file in plan.inputs}


def _metric(result: BenchmarkResult, name: str) -> Metric:
    """A metric of a result. Raises DataError, with the metrics that exist, if it is missing."""
    metrics = {f"{result.benchmark}.{metric.metric}": metric for metric in result.metrics}
    if name not in metrics:
        raise DataError(
            f"{result.pair}: {result.variant} has no metric {name}; correct `metrics` of the figure: there are"
            f" {', '.join(metrics)}"
        )
    return metrics[name]
