"""The answer to a statement over several runs (seeds): the verdict, the numbers, and their texts.

Everything is made from the rows of measures.csv, the table that a page of claims stands on.
"""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expoflow.claims import tables
from expoflow.claims.statement import STATEMENTS, YES, Statement, verdict
from expoflow.files.records import read_csv

Row = Mapping[str, str]
COLUMNS = ("run", *tables.CLAIM_COLUMNS)
WIDTH = 100  # columns of a line of the pages
LISTED = 3  # more subjects of a quantity are pooled,
NUMBERS = 10  # unless a statement has at most so many numbers


@dataclass(frozen=True)
class Entry:
    """A number of the details page: a quantity of one subject, or of several subjects together."""

    quantity: str
    subject: str
    rows: Sequence[Row]

    @property
    def exceptions(self) -> list[str]:
        """Of several subjects together, those that are not as expected in at least one run."""
        subjects = _by(self.rows, "subject")
        return [name for name, rows in subjects.items() if _unmet(rows)] if len(subjects) > 1 else []


@dataclass(frozen=True)
class Answer:
    """What several runs say of a statement: `rows` are its rows of measures.csv."""

    statement: Statement
    rows: Sequence[Row]

    @property
    def verdict(self) -> str:
        """One of HOLDS, FAILS and DEPENDS, or an empty text if nothing was expected."""
        return verdict([row["outcome"] for row in rows] for rows in _by(self.rows, "run").values())

    @property
    def expected(self) -> list[Row]:
        """The rows of the first quantity that is expected: the statement's own number."""
        rows = [row for row in self.rows if row["expected"]]
        return [row for row in rows if row["quantity"] == rows[0]["quantity"]]

    @property
    def value(self) -> str:
        """The statement's number: its mean over subjects and runs, with its spread."""
        return spread(self.expected) if self.expected else ""

    @property
    def mean(self) -> str:
        """The statement's number with the smallest and the largest value, without the interval."""
        return self.value.partition(" ±")[0]

    @property
    def met(self) -> str:
        """How many values of all expected quantities are as expected."""
        return met(self.rows)

    def entries(self) -> Iterator[Entry]:
        """All numbers; those that the verdict rests on come first."""
        groups: dict[tuple[str, bool], list[Row]] = defaultdict(list)
        for row in self.rows:
            groups[row["quantity"], bool(row["expected"])].append(row)
        few = sum(len(_by(rows, "subject")) for rows in groups.values()) <= NUMBERS
        for (quantity, _), rows in sorted(groups.items(), key=lambda item: not item[0][1]):
            subjects = _by(rows, "subject")
            if few or len(subjects) <= LISTED:
                yield from (Entry(quantity, subject, each) for subject, each in subjects.items())
            else:
                yield Entry(quantity, f"{len(subjects)} subjects", rows)


def read_measures(path: Path) -> list[Row]:
    """The rows of measures.csv. Raises DataError if the table is missing, cut or lacks a column."""
    return read_csv(path, COLUMNS)


def answers(rows: Iterable[Row]) -> dict[str, Answer]:
    """The answer to every statement that `rows` measure, by the statement's name."""
    found = _by(rows, "statement")
    return {name: Answer(each, found[name]) for name, each in STATEMENTS.items() if name in found}


def met(rows: Iterable[Row]) -> str:
    """How many values are as expected, as "N of M"; an empty text if nothing was expected."""
    outcomes = [row["outcome"] for row in rows if row["outcome"]]
    return f"{outcomes.count(YES)} of {len(outcomes)}" if outcomes else ""


def spread(rows: Sequence[Row]) -> str:
    """Mean, smallest and largest value, and half the width of the interval inside a run."""
    values = [float(row["value"]) for row in rows]
    text = number(mean(values))
    if len(values) > 1:
        text += f" ({number(min(values))} to {number(max(values))})"
    halves = [(float(row["high"]) - float(row["low"])) / 2 for row in rows if row["low"]]
    return f"{text} ±{number(mean(halves))}" if halves else text


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1g}"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def plain(text: str) -> str:
    """A quantity or subject of measures.csv in words: those are keys, and say "less" for minus."""
    return text.replace(" less ", " minus ").replace("_", " ")


def paragraph(text: str, mark: str = "") -> str:
    """`text` in lines of WIDTH, each with its newline; `mark` begins a point of a list."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) + "\n"


def _by(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    """The rows by their value in `column`, in the order of first appearance."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return groups


def _unmet(rows: Iterable[Row]) -> bool:
    return any(row["outcome"] not in (YES, "") for row in rows)
