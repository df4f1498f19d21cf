"""Prompt sets: results/prompts/{prompts}.jsonl from a file or a world, one line a prompt."""

import hashlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from expoflow.config import PromptsConfig
from expoflow.errors import DataError
from expoflow.records import Message, Prompt


def prompt_id(messages: Sequence[Message]) -> str:
    """First 16 hexadecimal digits of the sha256 of the messages' canonical JSON."""
    canonical = json.dumps(
        [{"role": m.role, "content": m.content} for m in messages], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def modules(source: PromptsConfig) -> tuple[str, ...]:
    """The modules that a prompt set depends on, for its digest."""
    return ("prompts", "miniature.world") if source.miniature else ("prompts",)


def load(source: PromptsConfig, seed: int) -> list[Prompt]:
    """The prompts that `source` stands for; `seed` is the miniature's. Raises DataError."""
    if source.miniature is not None:
        world = importlib.import_module("expoflow.miniature.world")  # no dependency of prompt files
        return world.prompts(source.miniature, seed)
    return read_file(Path(source.file), source.field)


def read_file(path: Path, field: str) -> list[Prompt]:
    """Read JSON lines: `field` of each is a text or a list of {role, content} messages.

    Raises DataError, with the line's number, for what is no JSON object, has no such field, is empty,
    or stands there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; correct the path") from None
    except UnicodeDecodeError:
        raise DataError(f"'{path}' is not UTF-8; save it as JSON lines in UTF-8") from None
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            prompt = _prompt(line, field, f"{path}:{number}")
            if prompt.prompt_id in prompts:
                raise DataError(f"{path}:{number}: this prompt stands there twice; remove one")
            prompts[prompt.prompt_id] = prompt
    if not prompts:
        raise DataError(f"'{path}' has no prompts; write one JSON object a line")
    return list(prompts.values())


def _prompt(line: str, field: str, where: str) -> Prompt:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); write one JSON object a line") from None
    if not isinstance(row, dict) or field not in row:
        has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{where}: no field '{field}' (has: {has}); set `field:` to the prompt's")
    messages = _messages(row[field], where, field)
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
