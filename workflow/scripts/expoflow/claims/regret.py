"""The mean regret by kind of pair and by what chose alpha, over several runs (claim 13)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from expoflow.claims.answers import Answer, Row, plain
from expoflow.claims.selection import WAYS
from expoflow.files.markdown import markdown_table

ALL = "all pairs"
HEADER = ("kind of pair", *WAYS.values())
INTRODUCTION = """
**Regret** is the true quality that a choice of alpha loses on the prompts that choose alpha, in
points. It is measured against the best alpha >= 0 of the same grid, on the same responses. A cell
shows the mean over pairs and runs, the smallest and the largest mean of a run in brackets, and the
largest regret of a pair (max). The number in brackets after a kind of pair is pairs times runs.
Every pair with an alpha above 0 is included.

"""


@dataclass(frozen=True)
class Lost:
    """Regrets of the pairs of a kind: the mean over pairs and runs, and the extremes."""

    mean: float
    low: float
    high: float
    worst: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f}), max {self.worst:.2f}"


def regrets(answer: Answer | None) -> dict[str, dict[str, Lost]]:
    """Regrets by kind of pair and way to choose, from the rows that every run has of them."""
    rows = answer.rows if answer else []
    kinds = dict.fromkeys(row["subject"] for row in rows if row["quantity"].startswith("mean regret by "))
    return {kind: {way: lost for way in WAYS if (lost := _lost(rows, kind, way))} for kind in kinds}


def table(found: dict[str, dict[str, Lost]]) -> str:
    """The Markdown table of the regrets, or an empty text if there are none."""
    if not found:
        return ""
    lines = [
        (f"{plain(kind)} ({ways['none'].pairs})", *(str(ways.get(way, "")) for way in WAYS))
        for kind, ways in found.items()
    ]
    return INTRODUCTION + markdown_table(HEADER, lines)


def _lost(rows: Sequence[Row], kind: str, way: str) -> Lost | None:
    means = [row for row in rows if (row["quantity"], row["subject"]) == (f"mean regret by {way}", kind)]
    if not means:
        return None
    values, pairs = [float(row["value"]) for row in means], [int(row["n"]) for row in means]
    total = sum(value * number for value, number in zip(values, pairs, strict=True))
    largest = _values(rows, f"largest regret by {way}", kind)
    return Lost(total / sum(pairs), min(values), max(values), max(largest), sum(pairs))


def _values(rows: Iterable[Row], quantity: str, subject: str) -> list[float]:
    return [float(row["value"]) for row in rows if (row["quantity"], row["subject"]) == (quantity, subject)]
