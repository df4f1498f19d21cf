"""Prompt sets: results/prompts/{prompts}.jsonl from a file, a dataset or a world, one prompt per
line."""

import hashlib
import importlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from expoflow.config.sources import PromptsConfig
from expoflow.data import images
from expoflow.data.messages import question
from expoflow.data.rows import rows
from expoflow.errors import DataError
from expoflow.files.formats import PACKED
from expoflow.results import Message, Prompt


def prompt_id(messages: Sequence[Message]) -> str:
    """The first 16 hexadecimal digits of the sha256 of the messages' canonical JSON.

    Images are represented by their sha256.
    """
    said = [
        {"role": m.role, "content": m.content}
        | ({"images": [each.sha256 for each in m.images]} if m.images else {})
        for m in messages
    ]
    canonical = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one text: its only message, or several messages after their roles. Images are
    counted."""
    if len(prompt.messages) == 1 and not prompt.has_images():
        return prompt.messages[0].content
    return "\n\n".join(
        f"{message.role}: {_images(len(message.images or ()))}{message.content}"
        for message in prompt.messages
    )


def _images(count: int) -> str:
    return f"[{count} image{'s' * (count > 1)}] " if count else ""


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Roles and texts of messages in the form that chat templates and trainers expect."""
    return [{"role": message.role, "content": message.content} for message in messages]


def load(
    source: PromptsConfig,
    seed: int,
    files: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
) -> list[Prompt]:
    """The prompts of `source`. `seed` is for the miniature. `say` reports what is left out. Raises
    DataError.

    `files` are those of a hub dataset (`hub.download.dataset`). In a user's file a repeated prompt
    is an error. In a hub dataset, which the user cannot correct, only its first occurrence is used.
    """
    if source.miniature is not None:
        world = importlib.import_module("expoflow.miniature.world")  # prompt files do not depend on it
        prompts = world.prompts(source.miniature, seed)
    else:
        repeated = "once" if source.hub else "error"
        prompts = read(files or [Path(source.file)], source.field, repeated, say, local=not source.hub)
    if source.subset is not None and source.subset < len(prompts):
        chosen = random.Random(source.seed).sample(range(len(prompts)), source.subset)
        prompts = [prompts[at] for at in sorted(chosen)]
    return prompts


def read(
    paths: Sequence[Path],
    field: str,
    repeated: str = "error",
    say: Callable[[str], None] = lambda line: None,
    local: bool = True,
) -> list[Prompt]:
    """Read prompts from files: `field` of each row is a text or a list of {role, content} messages.

    `images` of a row belong to its messages (`data.images`). Image paths are followed if the file
    is `local`. An answer at the end of a conversation is left out, and the rest is the prompt;
    `say` reports the number of such answers. Raises DataError, with the row's place, for a row that
    has no such field, is empty, asks for no response, or is repeated (unless `repeated` is "once").
    """
    prompts: dict[str, Prompt] = {}
    count = answered = 0
    for path in paths:
        for where, row in rows(path):
            if field not in row:
                raise DataError(
                    f"{where}: no field '{field}' (has: {', '.join(row)}); set `field:` (--field) to the prompt's"
                )
            shown = [
                images.image(each, where, path.parent if local else None) for each in images.given(row, where)
            ]
            messages, answer = question(row[field], where, field, shown)
            prompt = Prompt(prompt_id=prompt_id(messages), messages=messages)
            if repeated == "error" and prompt.prompt_id in prompts:
                raise DataError(f"{where}: this prompt occurs twice; remove one")
            prompts.setdefault(prompt.prompt_id, prompt)
            count, answered = count + 1, answered + (answer is not None)
    if not prompts:
        raise DataError(
            f"'{paths[0]}' has no prompts; write one row, or one line with a JSON object, for each"
        )
    if answered:
        say(
            f"{paths[0].name}: {answered} of {count} conversations end with an answer, which is left out: the prompt is"
            " everything before it"
        )
    return list(prompts.values())


def image_files(path: Path) -> list[Path]:
    """The image files named in the rows of a prompt file; none if the file cannot be read, which
    the job reports."""
    try:
        packed = path.suffix.lower() in PACKED
        if (
            not packed and b"image" not in path.read_bytes()
        ):  # most files have no images, so they are not parsed
            return []
        named = [
            file for where, row in rows(path) for file in images.paths(images.given(row, where), path.parent)
        ]
    except (DataError, OSError):
        return []
    return list(dict.fromkeys(named))
