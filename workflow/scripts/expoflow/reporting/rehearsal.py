"""What says of a file that it is of a rehearsal."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from expoflow.files.atomic import replacing, write_text
from expoflow.files.records import read_text

WORDS = "A REHEARSAL on the first {} prompts of every set: no result"
COLUMN = "rehearsal"  # of a table, with the number of prompts


def words(count: int | None) -> str:
    """That this is a rehearsal on the first `count` prompts of every set; nothing if it is none."""
    return WORDS.format(count) if count else ""


def mark(files: Iterable[Path], count: int | None) -> None:
    """Say it in tables (.csv: a further column) and texts (.md: a first line) that have just been written; nothing without `count`."""
    for file in files if count else ():
        text = read_text(file)
        if file.suffix == ".csv":
            with replacing(file) as new:
                writer = csv.writer(new, lineterminator="\n")
                for at, row in enumerate(csv.reader(io.StringIO(text, newline=""))):
                    writer.writerow([*row, count if at else COLUMN])
        else:
            write_text(file, f"**{words(count)}.**\n\n{text}")
