"""Rows of data files: JSON lines, a JSON array, CSV, TSV and Parquet, also compressed with gzip or
Zstandard."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from expoflow.errors import DataError
from expoflow.files.formats import format_of

Rows = Iterator[tuple[str, Any]]

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # halves of a character; json joins matching halves
LONGEST = 1 << 30  # characters of a CSV field; Python's own limit is too small for a long conversation
REMEDY = "write one JSON object per line"
# By the first bytes of a file: its kind, the suffix that it may have, and the remedy if it has
# another one. UTF-32 comes before UTF-16, because it starts with the mark of UTF-16.
BEGINNINGS = {
    b"\xff\xfe\x00\x00": ("UTF-32 text", None, "save it in UTF-8"),
    b"\xff\xfe": ("UTF-16 text", None, "save it in UTF-8"),
    b"\xfe\xff": ("UTF-16 text", None, "save it in UTF-8"),
    b"\x1f\x8b": ("packed by gzip", ".gz", "let its name end in .gz"),
    b"\x28\xb5\x2f\xfd": ("packed by Zstandard", ".zst", "let its name end in .zst"),
    b"PAR1": ("a Parquet file", ".parquet", "let its name end in .parquet"),
    b"PK\x03\x04": ("a ZIP archive or a spreadsheet", None, "unpack it, or save its table as .csv"),
    b"BZh91AY&SY": ("packed by bzip2", None, "unpack it"),
    b"\xfd7zXZ\x00": ("packed by xz", None, "unpack it"),
    b"version https://git-lfs": ("a pointer of Git LFS", None, "run: git lfs pull"),
}


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a file with its place, for messages.

    The file's name determines the format (`format_of`). Raises DataError, which names the file, the
    line or row, and the remedy.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}; correct the path") from None
    kind, packed = format_of(path.name)
    if packed:
        _require_expected(path, data, packed)
        data = _unpacked(path, data, packed)
    _require_expected(path, data, kind)
    for where, row in READERS[kind](path, data):
        if not isinstance(row, dict):
            raise DataError(f"{where}: holds a {type(row).__name__}; {REMEDY}")
        yield where, row


def _require_expected(path: Path, data: bytes, suffix: str) -> None:
    """Raise DataError if the first bytes belong to another kind of file than `suffix` stands
    for."""
    for beginning, (what, own, remedy) in BEGINNINGS.items():
        if data.startswith(beginning) and own != suffix:
            raise DataError(f"'{path}' is {what}, but its name says {suffix}; {remedy}")


def _unpacked(path: Path, data: bytes, packed: str) -> bytes:
    try:
        if packed == ".gz":
            return gzip.decompress(data)
        import pyarrow

        with pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd") as file:
            return file.read()
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise DataError(
            f"'{path}' cannot be unpacked ({error}); it is cut, broken or not a {packed} file: copy or pack it again"
        ) from None


def _text(path: Path, data: bytes) -> str:
    """The text of a file without the byte order mark that some programs put before it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = 1 + data.count(b"\n", 0, error.start), data[error.start]
        raise DataError(
            f"{path}:{line}: is not UTF-8 (byte 0x{byte:02x}); save it in UTF-8, or give a"
            " .jsonl, .json, .csv, .tsv or .parquet file"
        ) from None


def _json(path: Path, data: bytes) -> Rows:
    """Rows from one JSON array of objects, or from one object per line."""
    text = io.StringIO(_text(path, data), newline=None).getvalue()  # every kind of line end becomes \n
    lines = text.split("\n")
    if text.lstrip()[:1] == "[" and not _is_lines(lines):
        for number, row in enumerate(_parsed(text, str(path)), start=1):
            yield f"{path} row {number}", row
        return
    for number, line in enumerate(lines, start=1):
        if line.strip() in ("{", "["):
            raise DataError(
                f"{path}:{number}: an object that spans several lines; {REMEDY}, or one array of all objects"
            )
        if line.strip():
            yield f"{path}:{number}", _parsed(line, f"{path}:{number}")


def _is_lines(lines: Sequence[str]) -> bool:
    """Whether several lines hold an array each. These are no rows, and the message should name the
    line."""
    return sum(line.startswith("[") and line.rstrip().endswith("]") for line in lines) > 1


def _parsed(text: str, where: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        place = f" at line {error.lineno}" if "\n" in text else ""
        raise DataError(f"{where}: not JSON ({error.msg}{place}); {REMEDY}") from None
    except KeyError as error:
        raise DataError(f"{where}: key {error} occurs twice; rename or remove one") from None
    except UnicodeEncodeError:
        raise DataError(f"{where}: holds half of a character, such as \\ud83d; write it whole") from None
    except ValueError as error:
        raise DataError(f"{where}: cannot be read ({error}); write such a number as a text") from None
    except RecursionError:
        raise DataError(f"{where}: lists in lists without end; {REMEDY}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these keys and values. Raises KeyError for a repeated key, because either
    value could be meant."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def _require_distinct(path: Path, columns: Sequence[str]) -> None:
    """Raise DataError if two columns have the same name."""
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise DataError(f"'{path}' has the column '{twice}' twice; rename or remove one")


def _csv(path: Path, data: bytes, separator: str = ",") -> Rows:
    def fail(problem: object) -> NoReturn:
        raise DataError(
            f"'{path}' is no {'CSV' if separator == ',' else 'TSV'} file ({problem}); save it again"
        )

    csv.field_size_limit(LONGEST)
    table = csv.DictReader(io.StringIO(_text(path, data), newline=""), delimiter=separator, strict=True)
    try:
        columns = table.fieldnames or []
        if len(columns) == 1 and (other := next((each for each in ";\t|" if each in columns[0]), None)):
            fail(f"its columns are separated by {other!r}, not by {separator!r}")
        _require_distinct(path, columns)
        for number, row in enumerate(table, start=1):
            if None in row or None in row.values():
                fail(f"row {number} does not have {len(table.fieldnames)} fields like the first line")
            yield f"{path} row {number}", row
    except csv.Error as error:
        fail(error)


def _tsv(path: Path, data: bytes) -> Rows:
    return _csv(path, data, "\t")


def _parquet(path: Path, data: bytes) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(pyarrow.BufferReader(data)).read()
        _require_distinct(path, table.column_names)
        found = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"'{path}' is no Parquet file ({problem}); save it again") from None
    for number, row in enumerate(found, start=1):
        yield f"{path} row {number}", row


READERS = {".jsonl": _json, ".json": _json, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet}
