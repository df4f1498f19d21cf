"""Tables in the form of the paper's: aligned and expo side by side (Tables 1, 2) or stacked (Appendix D).

The same code renders the paper's published figures and a run's own results/benchmarks.csv.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import NamedTuple

from expoflow.files.atomic import write_text
from expoflow.files.markdown import markdown_table
from expoflow.files.records import read_csv, write_csv

ABSENT = "-"
EXPO_ROW = "+ ExPO"


class Score(NamedTuple):
    """What a number of a table stands for."""

    row: str
    variant: str
    benchmark: str
    metric: str


Scores = Mapping[Score, Decimal]


@dataclass(frozen=True)
class Column:
    """A metric of a table.

    `scale` makes the printed number out of the stored one. `steps` are the decimals of the roundings, half up,
    one after the other: Appendix D was rounded to two decimals, then to one.
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
BENCHMARKS = tuple(dict.fromkeys(column.benchmark for column in (*TABLE_1, *APPENDIX_D)))


@dataclass(frozen=True)
class Table:
    """Texts of a table; the first column names the rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self, bold: Iterable[int] = ()) -> str:
        """The table as Markdown; of the columns `bold` (from 0) what stands before a bracket is bold."""
        rows = [
            [_strong(cell) if i in set(bold) else cell for i, cell in enumerate(row)] for row in self.rows
        ]
        return markdown_table(self.header, rows)

    def write(self, stem: Path, bold: Iterable[int] = ()) -> None:
        """Write `stem`.csv, where every row has its full name, and `stem`.md."""
        names, rows, model = [name or "model" for name in self.header], [], ""
        for label, *cells in self.rows:
            model = label if label != EXPO_ROW else f"{model} {EXPO_ROW}"
            rows.append(dict(zip(names, [model, *cells], strict=True)))
        write_csv(stem.with_suffix(".csv"), rows, names)
        write_text(stem.with_suffix(".md"), self.markdown(bold))


def side_by_side(scores: Scores, rows: Sequence[str], columns: Sequence[Column]) -> Table:
    """Tables 1 and 2: aligned, then expo with its difference in brackets, made from the unrounded scores."""
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
    )


def stacked(scores: Scores, rows: Sequence[str], columns: Sequence[Column]) -> Table:
    """Appendix D: a line for the aligned model, and one below it for expo where there is any."""
    lines = []
    for row in rows:
        lines.append((row, *(_cell(scores, row, "aligned", column) for column in columns)))
        if any(score.row == row and score.variant == "expo" for score in scores):
            lines.append((EXPO_ROW, *(_cell(scores, row, "expo", column) for column in columns)))
    return Table(("", *(column.name for column in columns)), tuple(lines))


def read_results(path: Path) -> dict[Score, Decimal]:
    """The scores of results/benchmarks.csv; every pair's SFT model is a row of its own, before the pair's."""
    scores = {}
    for line in read_csv(path):
        row, variant = line["pair"], line["variant"]
        if variant == "sft":
            row, variant = f"{row} (SFT)", "aligned"
        if variant in ("aligned", "expo") and line["value"]:
            scores[Score(row, variant, line["benchmark"], line["metric"])] = Decimal(line["value"])
    return scores


def write_paper_tables(benchmarks: Path, folder: Path) -> None:
    """From results/benchmarks.csv write what it has numbers for: table1, table2 and appendix_d, .csv and .md."""
    scores = read_results(benchmarks)
    expo = range(1 + len(TABLE_1), 1 + 2 * len(TABLE_1))
    side_by_side(scores, _rows(scores, TABLE_1), TABLE_1).write(folder / "table1", expo)
    side_by_side(scores, _rows(scores, TABLE_2), TABLE_2).write(folder / "table2")
    stacked(scores, _rows(scores, APPENDIX_D), APPENDIX_D).write(folder / "appendix_d")


def _rows(scores: Scores, columns: Sequence[Column]) -> list[str]:
    """The rows that have a number in one of the columns, in the order of the scores."""
    asked = {(column.benchmark, column.metric) for column in columns}
    return list(dict.fromkeys(s.row for s in scores if (s.benchmark, s.metric) in asked))


def _cell(scores: Scores, row: str, variant: str, column: Column) -> str:
    value = scores.get(Score(row, variant, column.benchmark, column.metric))
    return ABSENT if value is None else f"{column.shown(value)}{column.unit}"


def _gain(scores: Scores, row: str, column: Column) -> str:
    """The cell of expo, with the difference to aligned where both are known."""
    cell = _cell(scores, row, "expo", column)
    before, after = (scores.get(Score(row, v, column.benchmark, column.metric)) for v in ("aligned", "expo"))
    if before is None or after is None:
        return cell
    return f"{cell} ({column.shown(after - before):+}{column.unit})"


def _strong(cell: str) -> str:
    value, space, rest = cell.partition(" ")
    return cell if cell == ABSENT else f"**{value}**{space}{rest}"
