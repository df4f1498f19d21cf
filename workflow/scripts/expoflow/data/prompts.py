"""Prompt sets: results/prompts/{prompts}.jsonl from a file, a dataset or a world, one line a prompt."""

import hashlib
import importlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from expoflow.config.sources import PromptsConfig
from expoflow.data.rows import rows
from expoflow.errors import DataError
from expoflow.results import Message, Prompt


def prompt_id(messages: Sequence[Message]) -> str:
    """First 16 hexadecimal digits of the sha256 of the messages' canonical JSON."""
    canonical = json.dumps(
        [{"role": m.role, "content": m.content} for m in messages], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def load(source: PromptsConfig, seed: int, files: Sequence[Path] = ()) -> list[Prompt]:
    """The prompts that `source` stands for; `seed` is the miniature's. Raises DataError.

    `files` are those of a dataset of the hub (`hub.download.dataset`). A prompt that stands twice is an error
    in a file of the user's; the hub's, which the user cannot correct, are taken once.
    """
    if source.miniature is not None:
        world = importlib.import_module("expoflow.miniature.world")  # no dependency of prompt files
        prompts = world.prompts(source.miniature, seed)
    else:
        prompts = read(files or [Path(source.file)], source.field, repeated="once" if source.hub else "error")
    if source.subset is not None and source.subset < len(prompts):
        chosen = random.Random(source.seed).sample(range(len(prompts)), source.subset)
        prompts = [prompts[at] for at in sorted(chosen)]
    return prompts


def read(paths: Sequence[Path], field: str, repeated: str = "error") -> list[Prompt]:
    """Read prompts from files: `field` of each row is a text or a list of {role, content} messages.

    Raises DataError, with the row's number, for a row that has no such field, is empty, ends with an answer,
    or stands there twice (unless `repeated` is "once").
    """
    prompts: dict[str, Prompt] = {}
    for path in paths:
        for where, row in rows(path):
            prompt = _prompt(row, field, where)
            if repeated == "error" and prompt.prompt_id in prompts:
                raise DataError(f"{where}: this prompt stands there twice; remove one")
            prompts.setdefault(prompt.prompt_id, prompt)
    if not prompts:
        raise DataError(f"'{paths[0]}' has no prompts; write one row, or one JSON object a line, for each")
    return list(prompts.values())


def _prompt(row: dict[str, Any], field: str, where: str) -> Prompt:
    if field not in row:
        raise DataError(f"{where}: no field '{field}' (has: {', '.join(row)}); set `field:` to the prompt's")
    messages = _messages(row[field], where, field)
    if messages[-1].role == "assistant":
        raise DataError(
            f"{where}: field '{field}' ends with an answer; name the field that ends with the question"
        )
    return Prompt(prompt_id=prompt_id(messages), messages=messages)


def _messages(value: Any, where: str, field: str) -> list[Message]:
    if isinstance(value, str) and value.strip():
        return [Message(role="user", content=value)]
    try:
        if isinstance(value, list) and value:
            return [Message.model_validate(message) for message in value]
    except ValidationError:
        pass
    raise DataError(
        f"{where}: field '{field}' must be a text or a list of {{role, content}} messages, not empty"
    )
