"""A printed table in Markdown and LaTeX, with marks for certified numbers and their legend."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from expoflow.files.atomic import write_text
from expoflow.files.latex import latex, latex_table, strong
from expoflow.files.markdown import markdown_table
from expoflow.files.records import write_csv

KINDS = ("csv", "md", "tex")
ABSENT = "-"
NOTHING_IS_CERTIFIED = "Nothing is marked: a rehearsal certifies nothing."


class Mark(Enum):
    """The print of a cell: bold, bold up to the first space, or followed by a dagger."""

    BOLD = "bold"
    BOLD_VALUE = "bold value"
    DAGGER = "dagger"


@dataclass(frozen=True)
class Table:
    """The texts of a table. The first column names the rows.

    `marks` are by row and column, counted from 0. `caption` says in one sentence what the table
    shows, and `note` adds remarks. `columns` has an l (left) or r (right) per column for LaTeX. By
    default all columns but the first are aligned right.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: Mapping[tuple[int, int], Mark] = field(default_factory=dict)
    caption: str = ""
    note: str = ""
    columns: str = ""

    def grid(self) -> str:
        """The table alone as Markdown."""
        return markdown_table(self.header, self._cells(str, "**{}**".format))

    def markdown(self) -> str:
        """The table as Markdown, with its caption and note below."""
        words = " ".join(filter(None, (self.caption, self.note)))
        return f"{self.grid()}\n{words}\n" if words else self.grid()

    def latex(self, label: str) -> str:
        r"""The table as LaTeX, for `\input`."""
        return latex_table(
            [latex(name) for name in self.header],
            self._cells(lambda text: "--" if text == ABSENT else latex(text), strong),
            columns=self.columns or "l" + "r" * (len(self.header) - 1),
            caption=latex(self.caption),
            label=label,
            note=latex(self.note),
        )

    def _cells(self, text: Callable[[str], str], bold: Callable[[str], str]) -> list[list[str]]:
        """The cells, written by `text` and `bold`. An absent number has no mark."""
        return [
            [_cell(cell, self.marks.get((at, column)), text, bold) for column, cell in enumerate(row)]
            for at, row in enumerate(self.rows)
        ]


def write_table(path: Path, table: Table, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the one of KINDS that `path` ends in: `rows` with `columns` as .csv, else `table`."""
    if path.suffix == ".csv":
        write_csv(path, map(dict, rows), columns)
    else:
        write_text(path, table.markdown() if path.suffix == ".md" else table.latex(f"expoflow-{path.stem}"))


def files(table: Path) -> list[Path]:
    """All files of the table that the file `table` belongs to."""
    return [table.with_suffix(f".{kind}") for kind in KINDS]


def certified_words(measured: str, confidences: Collection[float]) -> str:
    """The legend of bold and the dagger.

    `measured` names what has the interval, and `confidences` are its levels. Without levels nothing
    is marked.
    """
    if not confidences:
        return NOTHING_IS_CERTIFIED
    level = " or ".join(f"{100 * each:g}%" for each in sorted(set(confidences)))
    return (
        f"Bold: ExPO is better than the aligned model, and that is certified: the {level} interval of {measured} says so."
        " †: it is worse, certified in the same way. A number without a mark is not certified."
    )


def _cell(cell: str, mark: Mark | None, text: Callable[[str], str], bold: Callable[[str], str]) -> str:
    if cell == ABSENT or mark is None:
        return text(cell)
    if mark is Mark.DAGGER:
        return text(f"{cell}†")
    value, space, rest = cell.partition(" ") if mark is Mark.BOLD_VALUE else (cell, "", "")
    return f"{bold(text(value))}{space}{text(rest)}"
