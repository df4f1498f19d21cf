"""What an engine reads from a model's folder besides weights: config, tokenizer, stop tokens."""

import hashlib
import re
from typing import Any

from expoflow.checkpoints.checkpoint import read_json_file
from expoflow.engines.chat import Chat
from expoflow.engines.model import Completion, Model, engine_key
from expoflow.errors import CheckpointError

FILES = re.compile(
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|chat_template|(pre)?processor_config).*|.*\.(model|jinja|tiktoken|py)"
)
# The tokenizer that was loaded last, by a digest of what it was made from.
kept: dict[str, Any] = {}


def tokenizer(model: Model) -> Any:
    """Return the model's tokenizer with its chat template; reuse the last one if unchanged."""
    digest = hashlib.sha256(repr((model.chat_template, model.trust_remote_code)).encode())
    for path in sorted(model.folder.iterdir()):
        if FILES.fullmatch(path.name):
            digest.update(path.name.encode() + path.read_bytes())
    key = digest.hexdigest()
    if key not in kept:
        from transformers import AutoTokenizer

        try:
            loaded = AutoTokenizer.from_pretrained(model.folder, trust_remote_code=model.trust_remote_code)
            _ = loaded.all_special_ids
        except RecursionError:  # transformers looks up an unk_token that is itself unknown
            raise CheckpointError(
                f"{model.folder}: its tokenizer names special tokens that are not in its vocabulary, including the unk_token; "
                "copy the tokenizer's files from the model that it was trained from"
            ) from None
        except Exception as error:  # tokenizers raises plain Exceptions
            raise CheckpointError(
                f"{model.folder}: its tokenizer cannot be loaded ({' '.join(str(error).split())[:200]}); "
                "copy the tokenizer's files from the model that it was trained from"
            ) from None
        if template := model.chat_template or loaded.chat_template or _processor_template(model):
            loaded.chat_template = template
        kept.clear()
        kept[key] = loaded
    return kept[key]


def _processor_template(model: Model) -> str | None:
    """Return the chat template that transformers 4 saved with a model's image processor."""
    files = (read_json_file(model.folder / name) for name in ("chat_template.json", "processor_config.json"))
    return next((said["chat_template"] for said in files if said.get("chat_template")), None)


def config(model: Model) -> Any:
    """Return the model's config, as transformers reads it."""
    from expoflow.checkpoints.loading import read_config

    return read_config(model.folder, model.trust_remote_code)


def stop_ids(model: Model) -> set[int]:
    """Return the tokens that end a response.

    These are every eos of generation_config, config and tokenizer, the token that the chat template
    writes after a response, and the user's own. Raises CheckpointError for an eos that is not a
    token id.
    """
    said, own = read_json_file(model.folder / "config.json"), tokenizer(model)
    inner = said.get("text_config")
    named = {
        "generation_config.json": read_json_file(model.folder / "generation_config.json").get("eos_token_id"),
        "config.json": said.get("eos_token_id"),
        "config.json's text_config": inner.get("eos_token_id") if isinstance(inner, dict) else None,
        "the tokenizer": own.eos_token_id,
        "the chat template": Chat.of(own, model).turn_end(),
    }
    found = set(model.stop)
    for place, tokens in named.items():
        for token in tokens if isinstance(tokens, list) else [tokens]:
            if type(token) is int:
                found.add(token)
            elif token is not None:
                raise CheckpointError(
                    f"{model.folder}: {place} has eos_token_id {token!r}, which is not a token id; correct it"
                )
    if not found:  # none is named anywhere: take the default of the config's class
        eos = config(model).eos_token_id
        found |= {*(eos if isinstance(eos, list) else [eos])} - {None}
    return {token for token in found if token >= 0}  # -1 means none


def completion(tokenizer: Any, tokens: list[int], stop: set[int]) -> Completion:
    """Return the response of generated `tokens`, which end with a stop token unless cut off."""
    stopped = bool(tokens) and tokens[-1] in stop
    stop_token = tokens[-1] if stopped else None
    tokens = tokens[:-1] if stopped else tokens
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    text = text.encode(errors="replace").decode()  # a lone surrogate cannot be written to a file
    return Completion(text, len(tokens), "stop" if stopped else "length", stop_token)


def require_same_architecture(key: str, loaded: Model, model: Model, engine: str) -> None:
    """Raise CheckpointError if an engine that runs `loaded` cannot take the weights of `model`.

    `key` is the engine's key from when it loaded that model; its folder may be gone by now.
    """
    if key != engine_key(model, engine):
        raise CheckpointError(
            f"{model.folder}: its architecture or config differs from that of {loaded.folder}; start another engine for it"
        )
