"""Over how many GPUs vLLM can spread a model: it cuts attention heads, and the layers between them, into equal parts."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# What a config.json calls the number of attention heads, and of those of keys and values.
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEYS = (
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "multi_query_group_num",
    "num_attention_groups",
)


def spread(folder: Path | str, most: int) -> int:
    """The largest number of GPUs, `most` at most, over which the model in a folder can be spread."""
    shape = dimensions(folder)
    return next((number for number in range(most, 1, -1) if fits(shape, number)), 1)


def dimensions(folder: Path | str) -> dict[str, int]:
    """Heads, heads of keys and values, and width of the layers between; without those that config.json does not say."""
    with suppress(OSError, ValueError, RecursionError):
        config: Any = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        if isinstance(config, Mapping):
            text = config.get("text_config")
            return _dimensions(text if isinstance(text, Mapping) else config)
    return {}


def fits(shape: Mapping[str, int], number: int) -> bool:
    """Whether so many GPUs get equal parts; heads of keys and values are repeated if there are fewer."""
    keys = shape.get("key-value heads", 1)
    return (
        all(size % number == 0 for name, size in shape.items() if name != "key-value heads")
        and max(keys, number) % min(keys, number) == 0
    )


def _dimensions(config: Mapping[str, Any]) -> dict[str, int]:
    found = {"heads": _first(config, HEADS), "key-value heads": _first(config, KEYS)}
    if config.get("multi_query") and not config.get("new_decoder_architecture"):  # Falcon's
        found["key-value heads"] = 1
    if config.get("kv_lora_rank"):  # they are made from one latent vector, of which every GPU has all
        found["key-value heads"] = None
    if not any("expert" in name for name in config):  # which are often of another width
        found["intermediate size"] = _first(config, ("intermediate_size",))
    return {name: size for name, size in found.items() if size}


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int and config[name] > 0), None)
