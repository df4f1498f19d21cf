"""What an engine takes from a model's folder beside the weights: config, tokenizer, stop tokens."""

import hashlib
import re
from typing import Any

from expoflow.engines.model import Completion, Model, engine_key
from expoflow.errors import CheckpointError

FILES = re.compile(
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|chat_template).*|.*\.(model|jinja|tiktoken|py)"
)
# The last tokenizer loaded, by what it was made from.
kept: dict[str, Any] = {}


def tokenizer(model: Model) -> Any:
    """The model's tokenizer, with its chat template; the same object as before where nothing differs."""
    digest = hashlib.sha256(repr((model.chat_template, model.trust_remote_code)).encode())
    for path in sorted(model.folder.iterdir()):
        if FILES.fullmatch(path.name):
            digest.update(path.name.encode() + path.read_bytes())
    key = digest.hexdigest()
    if key not in kept:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(model.folder, trust_remote_code=model.trust_remote_code)
        if model.chat_template:
            loaded.chat_template = model.chat_template
        kept.clear()
        kept[key] = loaded
    return kept[key]


def config(model: Model) -> Any:
    """The model's config, as transformers reads it."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model.folder, trust_remote_code=model.trust_remote_code)


def stop_ids(model: Model) -> set[int]:
    """The tokens that end a response: generation_config's, else config's, and those that the user added."""
    from transformers import GenerationConfig

    own = (model.folder / "generation_config.json").is_file()
    stop = GenerationConfig.from_pretrained(model.folder).eos_token_id if own else None
    stop = config(model).eos_token_id if stop is None else stop
    return {*(stop if isinstance(stop, list) else [stop]), *model.stop} - {None}


def completion(tokenizer: Any, tokens: list[int], stop: set[int]) -> Completion:
    """The response of generated `tokens`, which end with a stop token unless they were cut off."""
    stopped = bool(tokens) and tokens[-1] in stop
    tokens = tokens[:-1] if stopped else tokens
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    text = text.encode(errors="replace").decode()  # a lone surrogate fits into no file
    return Completion(text, len(tokens), "stop" if stopped else "length")


def require_same_architecture(key: str, loaded: Model, model: Model, engine: str) -> None:
    """CheckpointError where an engine that runs `loaded` cannot take the weights of `model`.

    `key` is the engine's key when it loaded that model, whose folder may be gone since.
    """
    if key != engine_key(model, engine):
        raise CheckpointError(
            f"{model.folder}: another architecture, with another config than that of {loaded.folder}; start another engine for it"
        )
