"""The page's table of benchmarks: the variants side by side, their difference, and the verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from expoflow.config.base import VARIANTS
from expoflow.reporting.remarks import DIFFERENCE, certified, is_share

Row = Mapping[str, str]
FAILED = "its job failed"
NOT_MEASURED = "not measured"
ONLY_COMPARED = "only compared"  # a metric that only the difference has, such as a win rate
VERDICTS = {1: "better", -1: "worse", 0: "not certified", None: ""}
ORDER = {"worse": 0, "better": 1, "not certified": 2}


@dataclass(frozen=True)
class Cell:
    """A cell: its text, and the value that it is sorted by.

    With `gap`, the text says why there is no number.
    """

    text: str
    value: float | None = None
    error: str = ""
    gap: bool = False


@dataclass(frozen=True)
class Line:
    """A metric of a benchmark: cells of SFT, aligned, ExPO and the difference, and the verdict."""

    pair: str
    benchmark: str
    metric: str
    cells: Sequence[Cell]
    n: str
    verdict: str

    @property
    def order(self) -> int:
        """The rank of the verdict in sorting: losses come first."""
        return ORDER.get(self.verdict, len(ORDER))


def lines(
    rows: Iterable[Row],
    higher: Mapping[str, Mapping[str, bool | None]],
    confidence: Mapping[str, float],
) -> list[Line]:
    """A line for every pair, benchmark and metric of benchmarks.csv, in its order.

    A job that failed has a row without a metric. `higher` says for every pair and metric of lm-eval
    whether more is better. `confidence` has the level of the intervals by pair. A pair that it
    lacks, as in a rehearsal, has nothing certified.
    """
    found: dict[tuple[str, str, str], dict[str, Row]] = {}
    failed: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row["metric"]:
            found.setdefault((row["pair"], row["benchmark"], row["metric"]), {})[row["variant"]] = row
        else:
            failed.setdefault((row["pair"], row["benchmark"]), set()).add(row["variant"])
    measured = {(pair, benchmark) for pair, benchmark, _ in found}
    found |= {(*place, ""): {} for place in failed if place not in measured}
    return [
        _line(
            *place,
            of,
            failed.get(place[:2], set()),
            higher.get(place[0], {}),
            confidence.get(place[0]),
        )
        for place, of in found.items()
    ]


def gaps(rows: Iterable[Row]) -> list[str]:
    """The results that are missing because their job failed: `p: alpaca_eval of expo`."""
    return [f"{row['pair']}: {row['benchmark']} of {row['variant']}" for row in rows if not row["metric"]]


def _line(
    pair: str,
    benchmark: str,
    metric: str,
    of: Mapping[str, Row],
    failed: set[str],
    higher: Mapping[str, bool | None],
    confidence: float | None,
) -> Line:
    compared = of.keys() == {DIFFERENCE}
    cells = [
        _value(of[variant])
        if variant in of
        else Cell(FAILED if variant in failed else ONLY_COMPARED if compared else NOT_MEASURED, gap=True)
        for variant in (*VARIANTS, DIFFERENCE)
    ]
    verdict = ""
    if difference := of.get(DIFFERENCE):
        verdict = VERDICTS[certified(difference, higher, confidence)] if confidence else "a rehearsal"
    counts = [row["n"] for row in of.values() if row.get("n")]
    return Line(pair, benchmark, metric or "all", cells, counts[-1] if counts else "", verdict)


def _value(row: Row) -> Cell:
    value = float(row["value"])
    if row.get("low") and row.get("high"):
        sign = "+" if row["variant"] == DIFFERENCE and not is_share(row) else ""
        low, high = (decimals(float(row[end]), sign) for end in ("low", "high"))
        return Cell(f"{decimals(value, sign)} [{low}, {high}]", value)
    error = f"±{float(row['standard_error']):.2g}" if row.get("standard_error") else ""
    return Cell(decimals(value), value, error)


def decimals(value: float, sign: str = "") -> str:
    """`value` in three decimals; a value that is not 0 never looks like 0.

    With the sign "+", positive numbers also have a sign.
    """
    return f"{value:{sign}.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:{sign}.1g}"
