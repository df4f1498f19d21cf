"""Typed records of the JSON and CSV files under results/. They are never half written.

Every writer here makes a temporary file next to its target and moves it into place. A reader, a
killed job or a second job on the same output sees the old file or the new one, nothing in between.
"""

import csv
import io
import json
import math
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from expoflow import __version__
from expoflow.errors import DataError, shown
from expoflow.files.atomic import replacing, write_text

Row = TypeVar("Row", bound="Record")

# The start of a cell that a spreadsheet may read as a formula. An alpha such as -0.5 is not a
# formula, and neither is a single dash, an empty cell of the paper's tables.
FORMULA = re.compile(r"[=+@\t]|-(?!$|\d+(\.\d+)?(e[-+]\d+)?$)")


class Record(BaseModel):
    """Base of all records: unknown and missing fields are errors, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def write_json(path: Path, value: "Record | dict | list") -> None:
    """Write a record or plain JSON data, indented, with the keys in their given order."""
    if isinstance(value, Record):
        value = value.model_dump(mode="json", exclude_none=True)
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """The text of a result file. Raises DataError if it is missing, unreadable or not text."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run snakemake to make it") from None
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); make it readable, or delete it and run snakemake again"
        raise DataError(f"{path}: {problem}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text; delete the file and run snakemake again") from None


def read_json(path: Path, record: type[Row]) -> Row:
    """Read one record. Raises DataError if the file is missing, truncated or of another form."""
    try:
        return record.model_validate_json(read_text(path))
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error)}; delete the file and run snakemake again") from None


def require_own(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise DataError if a result's content contradicts its path, because it was put there by
    hand."""
    for what, value in expected.items():
        if found[what] != value:
            raise DataError(
                f"{path}: is of {what} {shown(str(found[what]))}, not {value}; delete it and run snakemake again"
            )


def to_jsonl(rows: Iterable[Record]) -> str:
    """JSON lines: one object per line."""
    return "".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows)


def from_jsonl(text: str, record: type[Row], source: str) -> list[Row]:
    """The records of `text`. A DataError names `source` and the line. A truncated last line is an
    error too."""
    rows = []
    lines = text.split("\n")  # not splitlines: a text may contain other separators, such as U+2028
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        try:
            rows.append(record.model_validate_json(line))
        except ValidationError as error:
            raise DataError(
                f"{source}:{number}: {first_problem(error)}; delete it and run snakemake again"
            ) from None
    return rows


def write_jsonl(path: Path, rows: Iterable[Record]) -> None:
    """Write one JSON object per line."""
    write_text(path, to_jsonl(rows))


def read_jsonl(path: Path, record: type[Row]) -> list[Row]:
    """Read one JSON object per line. Errors name the file and the line."""
    return from_jsonl(read_text(path), record, str(path))


def write_csv(path: Path, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write a table with `columns`: floats in 6 significant digits, True as 1, None and NaN as
    empty cells.

    A text that a spreadsheet would read as a formula gets a leading apostrophe. Control characters
    are escaped.
    """
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)


def csv_text(path: Path, columns: Iterable[str] = ()) -> str:
    """The text of a table from `write_csv`. Raises DataError if it is missing or truncated, or
    lacks one of `columns`."""
    text = read_text(path)
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        whole = text.endswith("\n") and all(len(row) == len(header) for row in rows)
    except (csv.Error, ValueError):  # truncated within quotes, or empty
        whole = False
    if not whole:
        raise DataError(f"{path}: not a complete table; delete it and run snakemake again")
    if (lacking := next((name for name in columns if name not in header), None)) is not None:
        raise DataError(f"{path}: has no column {lacking}; delete it and run snakemake again")
    return text


def read_csv(path: Path, columns: Iterable[str] = ()) -> list[dict[str, str]]:
    """The rows of a table with `columns`, every value as text. Raises DataError for a broken
    table."""
    return list(csv.DictReader(io.StringIO(csv_text(path, columns), newline="")))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    text = shown(str(value))
    return f"'{text}" if isinstance(value, str) and FORMULA.match(text) else text


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, with its place."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]


def provenance(*packages: str) -> dict[str, Any]:
    """What a result was made with: versions of expoflow, Python and the named packages, and the
    machine type."""
    versions = {name: metadata.version(name) for name in packages}
    return {
        "expoflow": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **versions,
    }
