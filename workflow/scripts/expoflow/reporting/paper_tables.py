"""Tables in the paper's form: aligned and expo side by side (Tables 1, 2) or stacked (Appendix D).

The same code renders the paper's published numbers and a run's results/benchmarks.csv. The tables
of a run mark certified numbers. The paper printed all of ExPO's numbers in Table 1 in bold.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from expoflow.config.benchmarks import BenchmarksConfig
from expoflow.files.records import read_csv
from expoflow.reporting import remarks
from expoflow.reporting.printed_table import ABSENT, KINDS, Mark, Table, certified_words, write_table

EXPO_ROW = "+ ExPO"
MARKS = {1: Mark.BOLD_VALUE, -1: Mark.DAGGER}


class Score(NamedTuple):
    """The key of a number in a table."""

    row: str
    variant: str
    benchmark: str
    metric: str


Scores = Mapping[Score, Decimal]
Marks = Mapping[Score, Mark]
UNMARKED: Marks = MappingProxyType({})


@dataclass(frozen=True)
class Column:
    """A metric of a table.

    The printed number is the stored one times `scale`, rounded half up to each number of decimals
    in `steps`, one after the other. Appendix D was rounded to two decimals and then to one.
    """

    name: str
    benchmark: str
    metric: str
    scale: int = 1
    steps: tuple[int, ...] = (1,)
    unit: str = ""
    expo_name: str = ""

    def shown(self, value: Decimal) -> Decimal:
        """`value` as it is printed."""
        value *= self.scale
        for decimals in self.steps:
            value = value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
        return value


WIN_RATE = Column("WR", "alpaca_eval", "win_rate", unit="%", expo_name="Win Rate")
LC_WIN_RATE = Column("LC WR", "alpaca_eval", "lc_win_rate", unit="%", expo_name="LC Win Rate")
MT_BENCH = Column("MT-B", "mt_bench", "score", steps=(2,), expo_name="MT-Bench")
TABLE_1 = (WIN_RATE, LC_WIN_RATE, MT_BENCH)
TABLE_2 = (WIN_RATE, LC_WIN_RATE)
APPENDIX_D = tuple(
    Column(name, "open_llm", name.lower(), scale=100, steps=(2, 1))
    for name in ("ARC", "HellaSwag", "MMLU", "GSM8K", "Winogrande", "TruthfulQA")
)


def side_by_side(
    scores: Scores, rows: Sequence[str], columns: Sequence[Column], marks: Marks = UNMARKED
) -> Table:
    """Tables 1 and 2: aligned, then expo with the difference in brackets.

    The differences are those of the unrounded scores.
    """
    header = ["", *(column.name for column in columns)]
    header += [f"+ ExPO {column.expo_name or column.name}" for column in columns]
    return Table(
        tuple(header),
        tuple(
            (
                row,
                *(_cell(scores, row, "aligned", c) for c in columns),
                *(_gain(scores, row, c) for c in columns),
            )
            for row in rows
        ),
        _placed(marks, enumerate(rows), columns, 1 + len(columns)),
    )


def stacked(scores: Scores, rows: Sequence[str], columns: Sequence[Column], marks: Marks = UNMARKED) -> Table:
    """Appendix D: a line for the aligned model and, if there are scores, one for expo below it."""
    lines, expo = [], {}
    for row in rows:
        lines.append((row, *(_cell(scores, row, "aligned", column) for column in columns)))
        if any(Score(row, "expo", column.benchmark, column.metric) in scores for column in columns):
            expo[len(lines)] = row
            lines.append((EXPO_ROW, *(_cell(scores, row, "expo", column) for column in columns)))
    header = ("", *(column.name for column in columns))
    return Table(header, tuple(lines), _placed(marks, expo.items(), columns, 1))


class Form(NamedTuple):
    """A table of the paper: its columns, the layout of its rows, and its caption."""

    columns: tuple[Column, ...]
    layout: Callable[[Scores, Sequence[str], Sequence[Column], Marks], Table]
    caption: str


TABLES = {
    "table1": Form(
        TABLE_1,
        side_by_side,
        "AlpacaEval 2.0 win rates (WR), length-controlled win rates (LC WR) and MT-Bench scores (MT-B) of the aligned models and"
        " of ExPO, in the form of the paper's Table 1.",
    ),
    "table2": Form(
        TABLE_2,
        side_by_side,
        "AlpacaEval 2.0 win rates (WR) and length-controlled win rates (LC WR) of the aligned models and of ExPO, in the form of"
        " the paper's Table 2.",
    ),
    "appendix_d": Form(
        APPENDIX_D,
        stacked,
        "Scores in tasks of the Open LLM Leaderboard, in percent, of the aligned models and of ExPO, in the form of the paper's"
        " Appendix D.",
    ),
}


def have_rows(sections: Collection[BenchmarksConfig]) -> dict[str, bool]:
    """Whether each of TABLES will have rows, by name, if pairs are compared on `sections`."""
    return {
        name: any(_gives(section, column) for section in sections for column in form.columns)
        for name, form in TABLES.items()
    }


def read_results(path: Path) -> dict[Score, Decimal]:
    """The scores of results/benchmarks.csv.

    The SFT model of every pair has a row of its own, above the row of the pair.
    """
    scores = {}
    for line in read_csv(path):
        row, variant = line["pair"], line["variant"]
        if variant == "sft":
            row, variant = f"{row} (SFT)", "aligned"
        if variant in ("aligned", "expo") and line["value"]:
            scores[Score(row, variant, line["benchmark"], line["metric"])] = Decimal(line["value"])
    return scores


def read_marks(path: Path, confidence: Mapping[str, float]) -> Marks:
    """Marks for the certified differences in results/benchmarks.csv.

    `confidence` has the confidence level of each pair's intervals. A pair that it lacks has no
    marks.
    """
    return {
        Score(line["pair"], "expo", line["benchmark"], line["metric"]): MARKS[verdict]
        for line in read_csv(path)
        if (level := confidence.get(line["pair"])) and (verdict := remarks.certified(line, {}, level))
    }


def write_paper_tables(
    benchmarks: Path, folder: Path, confidence: Mapping[str, float], names: Collection[str] | None = None
) -> None:
    """Write the TABLES with `names` from results/benchmarks.csv into `folder`, in all KINDS.

    By default these are all tables that have a row. `confidence` has the confidence level of each
    pair's intervals. It is empty in a rehearsal, which certifies nothing.
    """
    scores, marks = read_results(benchmarks), read_marks(benchmarks, confidence)
    note = certified_words("their paired difference, for this number alone,", confidence.values())
    for name, form in TABLES.items():
        rows = _rows(scores, form.columns)
        if rows if names is None else name in names:
            table = form.layout(scores, rows, form.columns, marks)
            table = replace(table, caption=form.caption, note=note)
            for kind in KINDS:
                write_table(folder / f"{name}.{kind}", table, *_named(table))


def _named(table: Table) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of the .csv, in which every row has its full name."""
    names, rows, model = [name or "model" for name in table.header], [], ""
    for label, *cells in table.rows:
        model = label if label != EXPO_ROW else f"{model} {EXPO_ROW}"
        rows.append(dict(zip(names, [model, *cells], strict=True)))
    return names, rows


def _gives(section: BenchmarksConfig, column: Column) -> bool:
    """Whether a pair that is compared on `section` has a number for a column."""
    benchmark = section.sections().get(column.benchmark)
    return benchmark is not None and column.metric in getattr(benchmark, "tasks", (column.metric,))


def _placed(
    marks: Marks, rows: Iterable[tuple[int, str]], columns: Sequence[Column], first: int
) -> dict[tuple[int, int], Mark]:
    """The marks of expo's numbers by row and column.

    `rows` come with their indices, and the columns begin at `first`.
    """
    return {
        (at, place): mark
        for at, row in rows
        for place, column in enumerate(columns, first)
        if (mark := marks.get(Score(row, "expo", column.benchmark, column.metric)))
    }


def _rows(scores: Scores, columns: Sequence[Column]) -> list[str]:
    """The rows that have a number in at least one of the columns, in the order of the scores."""
    asked = {(column.benchmark, column.metric) for column in columns}
    return list(dict.fromkeys(s.row for s in scores if (s.benchmark, s.metric) in asked))


def _cell(scores: Scores, row: str, variant: str, column: Column) -> str:
    value = scores.get(Score(row, variant, column.benchmark, column.metric))
    return ABSENT if value is None else f"{column.shown(value)}{column.unit}"


def _gain(scores: Scores, row: str, column: Column) -> str:
    """The cell of expo, with the difference from aligned if both are known."""
    cell = _cell(scores, row, "expo", column)
    before, after = (scores.get(Score(row, v, column.benchmark, column.metric)) for v in ("aligned", "expo"))
    if before is None or after is None:
        return cell
    return f"{cell} ({column.shown(after - before):+}{column.unit})"
