"""Marks that say that a file comes from a rehearsal."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from expoflow.files.atomic import replacing, write_text
from expoflow.files.latex import latex, strong
from expoflow.files.records import read_text

WORDS = "A REHEARSAL on the first {} prompts of every set: no result"
COLUMN = "rehearsal"  # the column of a table that has the number of prompts


def words(count: int | None) -> str:
    """The note that this is a rehearsal on the first `count` prompts of every set, or ""."""
    return WORDS.format(count) if count else ""


def mark(files: Iterable[Path], count: int | None) -> None:
    """Add the note to tables that have just been written; do nothing without `count`.

    It goes into a further column (.csv), a first line (.md) or the caption (.tex).
    """
    for file in files if count else ():
        text = read_text(file)
        if file.suffix == ".csv":
            with replacing(file) as new:
                writer = csv.writer(new, lineterminator="\n")
                for at, row in enumerate(csv.reader(io.StringIO(text, newline=""))):
                    writer.writerow([*row, count if at else COLUMN])
        elif file.suffix == ".tex":
            mark = strong(latex(f"{words(count)}."))
            write_text(file, text.replace(r"\caption{", rf"\caption{{{mark} ", 1))
        else:
            write_text(file, f"**{words(count)}.**\n\n{text}")
