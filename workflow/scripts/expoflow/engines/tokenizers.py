"""The tokenizer of a model, loaded once for all the alphas whose folders hold the same one."""

import hashlib
import re
from typing import Any

from expoflow.engines import Model

FILES = re.compile(
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|chat_template).*|.*\.(model|jinja|tiktoken|py)"
)
# The last one loaded, by what it was made from.
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
