"""Images of a prompt file: found, checked, and stored with the prompt."""

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expoflow.errors import DataError
from expoflow.results import Image

KEYS = ("images", "image")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
DATA_URL = re.compile(r"data:[\w/+.-]*;base64,")
SHOWN = 60  # characters of an invalid image to show in a message
WAYS = "give a path relative to the file, or the image's bytes in base64"


def given(row: dict[str, Any], where: str) -> list[Any]:
    """The images of a row: the value of `images`, a list, or of `image`. Empty if it has
    neither."""
    found = [key for key in KEYS if row.get(key) not in (None, "", [])]
    if len(found) > 1:
        raise DataError(f"{where}: has both images and image; remove one")
    value = row[found[0]] if found else []
    return value if isinstance(value, list) else [value]


def require_none(row: dict[str, Any], where: str) -> None:
    """Raise DataError for a row with images, which would be lost."""
    if given(row, where):
        raise DataError(
            f"{where}: has images, which are only read for prompts; remove the column, or the row"
        )


def image(value: Any, where: str, folder: Path | None) -> Image:
    """An image from a path relative to `folder`, base64, a data: URL, or {bytes, path} as in
    Parquet files.

    Without a folder, paths are not followed. Raises DataError unless it is a single picture in one
    of FORMATS.
    """
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        value = value.get("bytes") or value.get("path")
    data = value if isinstance(value, bytes) else _bytes(value, where, folder)
    shown = "it" if isinstance(value, bytes) or len(value) > SHOWN else f"'{value}'"
    if problem := _problem(data):
        raise DataError(f"{where}: {shown} is no image that can be read ({problem}); {WAYS}")
    return Image(sha256=hashlib.sha256(data).hexdigest(), data=base64.b64encode(data).decode())


def paths(values: Sequence[Any], folder: Path) -> list[Path]:
    """The files among the images of a row."""
    named = [
        each.get("path") if isinstance(each, dict) and not each.get("bytes") else each for each in values
    ]
    return [path for each in named if isinstance(each, str) and (path := _file(each, folder))]


def _bytes(value: Any, where: str, folder: Path | None) -> bytes:
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: an image is a {type(value).__name__}; {WAYS}")
    if folder and (path := _file(value, folder)):
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{where}: cannot read image '{path}' ({error.strerror or error}); correct the path"
            ) from None
    try:
        return base64.b64decode(DATA_URL.sub("", value, count=1), validate=True)
    except (binascii.Error, ValueError):
        among = (
            f"no image file '{value[:SHOWN]}' in '{folder}'" if folder else f"'{value[:SHOWN]}' is no base64"
        )
        raise DataError(f"{where}: {among}; {WAYS if folder else 'give its bytes in base64'}") from None


def _file(value: str, folder: Path) -> Path | None:
    try:
        path = folder / value
        return path if path.is_file() else None
    except (OSError, ValueError):  # too long for a file name, so it is base64
        return None


def _problem(data: bytes) -> str | None:
    """Why these bytes are not a valid image; None if they are."""
    from PIL import Image as Pictures

    try:
        with Pictures.open(io.BytesIO(data), formats=FORMATS) as found:
            if getattr(found, "n_frames", 1) > 1:
                return f"it has {found.n_frames} pictures"
            found.load()
    except Pictures.UnidentifiedImageError:
        return f"no {', '.join(FORMATS)} file"
    except Exception as error:  # each format raises its own errors, even SyntaxError
        return " ".join(str(error).split())[:100] or type(error).__name__
    return None
