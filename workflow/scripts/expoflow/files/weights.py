"""Which files of a model hold its weights, and how large these are."""

from collections.abc import Mapping

WEIGHTS = (".safetensors", ".bin")


def weight_bytes(sizes: Mapping[str, int]) -> tuple[int, str]:
    """Bytes of the weights among files, and their suffix: of the safetensors where there are any; 0 and ""."""
    for suffix in WEIGHTS:
        if total := sum(size for name, size in sizes.items() if name.endswith(suffix)):
            return total, suffix
    return 0, ""
