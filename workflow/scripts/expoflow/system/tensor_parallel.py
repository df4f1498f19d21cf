"""The number of GPUs over which vLLM can spread a model.

vLLM splits attention heads, and the layers between them, into equal parts.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# Keys of config.json for the number of attention heads, and of key-value heads.
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEYS = (
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "multi_query_group_num",
    "num_attention_groups",
)


def spread(folder: Path | str, most: int) -> int:
    """Return the largest number of GPUs, at most `most`, over which a model can be spread."""
    shape = dimensions(folder)
    return next((number for number in range(most, 1, -1) if fits(shape, number)), 1)


def dimensions(folder: Path | str) -> dict[str, int]:
    """Return heads, key-value heads and width of the layers between, if config.json has them."""
    with suppress(OSError, ValueError, RecursionError):
        config: Any = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        if isinstance(config, Mapping):
            text = config.get("text_config")
            return _dimensions(text if isinstance(text, Mapping) else config)
    return {}


def fits(shape: Mapping[str, int], number: int) -> bool:
    """Return whether `number` GPUs get equal parts; if key-value heads are fewer, they repeat."""
    keys = shape.get("key-value heads", 1)
    return (
        all(size % number == 0 for name, size in shape.items() if name != "key-value heads")
        and max(keys, number) % min(keys, number) == 0
    )


def _dimensions(config: Mapping[str, Any]) -> dict[str, int]:
    found = {"heads": _first(config, HEADS), "key-value heads": _first(config, KEYS)}
    if config.get("multi_query") and not config.get("new_decoder_architecture"):  # Falcon
        found["key-value heads"] = 1
    if config.get("kv_lora_rank"):  # they are computed from one latent vector, which every GPU has
        found["key-value heads"] = None
    if not any("expert" in name for name in config):  # experts often have another width
        found["intermediate size"] = _first(config, ("intermediate_size",))
    return {name: size for name, size in found.items() if size}


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int and config[name] > 0), None)
