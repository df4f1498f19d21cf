"""The files that hold a model's weights, and their sizes."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

WEIGHTS = (".safetensors", ".bin")


def weight_bytes(sizes: Mapping[str, int]) -> tuple[int, str]:
    """Bytes of the weights among files, and their suffix: safetensors if there are any. 0 and ""
    without weights."""
    for suffix in WEIGHTS:
        if total := sum(size for name, size in sizes.items() if name.endswith(suffix)):
            return total, suffix
    return 0, ""


def folder_bytes(folder: str | Path) -> int:
    """Bytes of the weights in a folder; 0 if it cannot be read."""
    sizes = {}
    with suppress(OSError):
        for path in Path(folder).iterdir():
            if path.suffix in WEIGHTS:
                sizes[path.name] = path.stat().st_size
    return weight_bytes(sizes)[0]
