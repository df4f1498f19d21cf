"""Which files of a model hold its weights, and how large these are."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

WEIGHTS = (".safetensors", ".bin")


def weight_bytes(sizes: Mapping[str, int]) -> tuple[int, str]:
    """Bytes of the weights among files, and their suffix: of the safetensors where there are any; 0 and ""."""
    for suffix in WEIGHTS:
        if total := sum(size for name, size in sizes.items() if name.endswith(suffix)):
            return total, suffix
    return 0, ""


def folder_bytes(folder: str | Path) -> int:
    """Bytes of the weights that lie in a folder; 0 if it cannot be read."""
    sizes = {}
    with suppress(OSError):
        for path in Path(folder).iterdir():
            if path.suffix in WEIGHTS:
                sizes[path.name] = path.stat().st_size
    return weight_bytes(sizes)[0]
