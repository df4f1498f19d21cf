"""Remarks on a finished pair: where to look next, what got worse, and signs that it was swapped."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from expoflow.config.base import DIFFERENCE, spell
from expoflow.results import Best, Certificate

Row = Mapping[str, str]
NEXT = re.compile(r"; the grid ends here, try (\S+) and (\S+) next")  # the words of `selection.choice`
LESS_IS_BETTER = ("unfinished",)
NEITHER = ("length", "avg_length")
# The value of a difference that means that both are equally good. Of other metrics it is 0.
EQUAL = {("reward", "win_rate"): 0.5, ("human", "win_rate"): 0.5, ("human", "sweep_win_rate"): 0.5}


@dataclass(frozen=True)
class Remarks:
    """The remarks on a pair; a remark without cause is empty.

    `further` says why to try the alphas `more`.
    """

    responses: str
    exchanged: str = ""
    worse: str = ""
    further: str = ""
    more: tuple[str, ...] = ()


def of_pair(
    best: Best,
    certificate: Certificate | None,
    alphas: Sequence[Row],
    benchmarks: Iterable[Row],
    higher: Mapping[str, bool | None],
    confidence: float,
) -> Remarks:
    """All remarks on a pair's choice.

    A rehearsal has only the remark on its responses, since its few prompts cannot support the
    others. `alphas` are the rows of the pair's alphas.csv, and `benchmarks` are those of
    benchmarks.csv. `higher` and `confidence` are as in `worse`.
    """
    said = responses(alphas, best.alpha)
    if certificate and certificate.rehearsal:
        return Remarks(said)
    if certificate and certificate.held_out:  # the certificate already reports the gain
        of_gain = ("reward", certificate.measure)
        benchmarks = [row for row in benchmarks if (row["benchmark"], row["metric"]) != of_gain]
    why, more = further(best, certificate, alphas)
    return Remarks(
        said, exchanged(alphas), worse(benchmarks, best.pair, higher, confidence), why, tuple(more)
    )


def further(best: Best, certificate: Certificate | None, alphas: Iterable[Row]) -> tuple[str, list[str]]:
    """Why to try further alphas, and which ones; empty if there is no reason.

    `alphas` are the rows of alphas.csv. If an alpha above 0 was chosen and its gain in reward is
    not certified, there are too few prompts to tell. The advice is then to use more prompts and,
    unless the largest alpha is surely worse, alphas of 2, 4 and 8 times the largest. Otherwise, if
    the grid ends at the choice, it goes on by its last step.
    """
    if (
        best.reward is not None
        and best.alpha != "0"
        and not (best.certified or (certificate and certificate.certified))
    ):
        last = max(alphas, key=lambda row: float(row["alpha"]))
        count = f"{best.prompts} prompts" if best.prompts else "these prompts"
        told = f"{count} do not distinguish any alpha from the aligned model"
        if (high := last.get("gain_pointwise_high")) and float(high) < 0:
            return f"{told}: try more prompts", []
        return f"{told}: try more prompts, or larger alphas", [
            spell(float(last["alpha"]) * by) for by in (2, 4, 8)
        ]
    found = NEXT.search(best.reason) if best.edge else None
    return ("the grid ends here, and the best alpha may lie beyond", [*found.groups()]) if found else ("", [])


def without_next(best: Best) -> Best:
    """The choice, with a reason that leaves the advice on what to try next to `further`."""
    return best.model_copy(update={"reason": NEXT.sub("", best.reason)})


def exchanged(alphas: Iterable[Row]) -> str:
    """The remark that the SFT model (alpha -1) surely has the higher reward, else an empty text.

    `alphas` are the rows of alphas.csv.
    """
    rows = {row["alpha"]: row for row in alphas}
    sft, aligned = rows.get("-1", {}), rows.get("0", {})
    low = sft.get("gain_pointwise_low")
    if not low or float(low) <= 0:
        return ""
    rewards = f"{float(sft['reward']):.2f} against {float(aligned['reward']):.2f}"
    return (
        f"the SFT model (alpha -1) has a higher reward than the aligned one: {rewards}; if sft and aligned were exchanged, correct"
        " that and run again"
    )


def responses(alphas: Iterable[Row], chosen: str) -> str:
    """The length of the chosen alpha's responses and their degenerate share, beside alpha 0's."""
    rows = {row["alpha"]: row for row in alphas}
    if chosen not in rows or "0" not in rows or not rows[chosen].get("length"):
        return ""
    new, old = rows[chosen], rows["0"]
    said = f"{float(new['length']):.0f} tokens on average"
    if new.get("degenerate"):
        said += f", {float(new['degenerate']):.1%} degenerate"
    if chosen == "0":
        return said
    then = f"{float(old['length']):.0f}" + (
        f", {float(old['degenerate']):.1%}" if old.get("degenerate") else ""
    )
    return f"{said} (aligned: {then})"


def worse(
    benchmarks: Iterable[Row], pair: str, higher: Mapping[str, bool | None], confidence: float = 0.95
) -> str:
    """The metrics of benchmarks.csv in which expo is surely worse than the aligned model, or "".

    `higher` says for each metric of lm-eval whether more is better; a metric that it does not know
    does not count. `confidence` is the level of the intervals. With few prompts an interval alone
    proves nothing, so the p-value must agree if there is one.
    """
    found, count = [], 0
    for row in benchmarks:
        if row["pair"] != pair or (verdict := certified(row, higher, confidence)) is None:
            continue
        count += 1
        if verdict < 0:
            benchmark, metric = row["benchmark"], row["metric"]
            value, low, high = (float(row[column]) - _equal(row) for column in ("value", "low", "high"))
            found.append(f"{benchmark} {metric} {value:+.3g} [{low:+.3g}, {high:+.3g}]")
    if not found:
        return ""
    return (
        f"{len(found)} of {count} metrics, each by its own {100 * confidence:g}% interval: {', '.join(found)}"
    )


def certified(row: Row, higher: Mapping[str, bool | None], confidence: float) -> int | None:
    """Whether a difference proves expo better (1) or worse (-1) than aligned, or neither (0).

    It is None if the row of benchmarks.csv is not a difference with an interval, or if more of its
    metric is neither good nor bad. `higher`, `confidence` and the p-value are as in `worse`.
    """
    if row["variant"] != DIFFERENCE or not row.get("low") or not row.get("high"):
        return None
    more = _more_is_better(row["benchmark"], row["metric"], higher)
    if more is None:
        return None
    if float(row.get("p_value") or 0) >= 1 - confidence:
        return 0
    above, below = float(row["low"]) > _equal(row), float(row["high"]) < _equal(row)
    return (above - below) * (1 if more else -1)


def is_share(row: Row) -> bool:
    """Whether a row of benchmarks.csv is a share of wins.

    A share of one half means that both are equally good. For other differences that value is 0.
    """
    return (row["benchmark"], row["metric"]) in EQUAL


def _equal(row: Row) -> float:
    return EQUAL.get((row["benchmark"], row["metric"]), 0)


def _more_is_better(benchmark: str, metric: str, higher: Mapping[str, bool | None]) -> bool | None:
    """Whether more of a metric is better; None if it is neither good nor bad, or not known."""
    if benchmark == "lm_eval":  # with several filters, the name of the filter follows the metric
        return higher.get(metric, higher.get(metric.rpartition(".")[0]))
    return None if metric in NEITHER else metric not in LESS_IS_BETTER
