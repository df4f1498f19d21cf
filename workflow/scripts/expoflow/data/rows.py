"""Rows of data files: JSON lines, CSV and Parquet; and which files of a hub dataset are a split's."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expoflow.errors import DataError

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # halves of a character; json joins those that belong together
LONGEST = 1 << 30  # characters of a CSV field; Python's own limit is less than a long conversation


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a file with the place where it stands, for messages. Raises DataError."""
    try:
        yield from READERS.get(path.suffix, _lines)(path)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}; correct the path") from None
    except UnicodeDecodeError:
        raise DataError(f"'{path}' is not UTF-8; save it in UTF-8") from None


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json" and text.lstrip()[:1] == "[":  # one array instead of lines
        found = ((f"{path}:{number}", row) for number, row in enumerate(_parsed(text, str(path)), start=1))
    else:
        places = ((f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), start=1))
        found = ((where, _parsed(line, where)) for where, line in places if line.strip())
    for where, row in found:
        if not isinstance(row, dict):
            raise DataError(f"{where}: holds a {type(row).__name__}; write one JSON object a line")
        yield where, row


def _parsed(text: str, where: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); write one JSON object a line") from None
    except KeyError as error:
        raise DataError(f"{where}: key {error} stands twice; rename or remove one") from None
    except UnicodeEncodeError:
        raise DataError(f"{where}: holds half of a character, such as \\ud83d; write it whole") from None
    except RecursionError:
        raise DataError(f"{where}: lists in lists without end; write one JSON object a line") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values; a KeyError for a key that stands twice: which one counts is a guess."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def _separated(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(LONGEST)
    with open(path, encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        try:
            for number, row in enumerate(table, start=1):
                if None in row or None in row.values():
                    raise csv.Error(f"row {number} has not {len(table.fieldnames)} fields as the first line")
                yield f"{path} row {number}", row
        except csv.Error as error:
            raise DataError(f"'{path}' is no CSV file ({error}); save it again") from None


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read().to_pylist()
    except ValueError as error:  # what pyarrow raises is one
        raise DataError(
            f"'{path}' is no Parquet file ({' '.join(str(error).split())}); save it again"
        ) from None
    for number, row in enumerate(table, start=1):
        yield f"{path} row {number}", row


READERS = {".csv": _separated, ".parquet": _parquet}
