"""Rows for TRL's trainers, as JSON lines: conversations from a dataset's files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from expoflow.data.prompts import prompt_id
from expoflow.data.rows import rows
from expoflow.errors import DataError
from expoflow.results import Message, Prompt

Turns = list[dict[str, str]]
Row = dict[str, Turns]


def example(prompt: Turns, response: str) -> Row:
    """A row of SFT: a prompt and the response to imitate."""
    return {"prompt": prompt, "completion": [_answer(response)]}


def pair(prompt: Turns, chosen: str, rejected: str) -> Row:
    """A row of DPO or of a reward model: a prompt, the preferred and the other response."""
    return {"prompt": prompt, "chosen": [_answer(chosen)], "rejected": [_answer(rejected)]}


def turns(prompt: Prompt) -> Turns:
    """A prompt's messages as plain data."""
    return [message.model_dump() for message in prompt.messages]


def read(recipe: str, files: Sequence[Path], fraction: float) -> list[Row]:
    """The first `fraction` of the rows of a dataset's files, as `recipe` needs them.

    Columns: `messages`, or `prompt` and `completion` (sft); `prompt`, `chosen` and `rejected` (dpo, reward),
    where chosen and rejected may begin with the prompt, as UltraFeedback binarized has them, and prompt may be
    absent then; `prompt` (iterative_dpo, rlhf). Raises DataError, which names the row and what it lacks.
    """
    found = [each for path in files for each in rows(path)]
    kept = found[: round(fraction * len(found))]
    if not kept:
        raise DataError(f"fraction {fraction} of {len(found)} rows is none; raise fraction")
    return [READERS[recipe](row, where) for where, row in kept]


def distinct_prompts(read_rows: Iterable[Row]) -> list[Prompt]:
    """The prompts of rows, each once, in order."""
    prompts: dict[str, Prompt] = {}
    for row in read_rows:
        messages = [Message(**turn) for turn in row["prompt"]]
        name = prompt_id(messages)
        prompts.setdefault(name, Prompt(prompt_id=name, messages=messages))
    return list(prompts.values())


def _sft(row: dict[str, Any], where: str) -> Row:
    if "messages" in row:
        return {"messages": _turns(row, "messages", where, "assistant")}
    return {"prompt": _prompt(row, where), "completion": [_answer(_text(row, "completion", where))]}


def _pair(row: dict[str, Any], where: str) -> Row:
    before, chosen = _split(row, "chosen", where)
    _, rejected = _split(row, "rejected", where)
    return pair(before or _prompt(row, where), chosen, rejected)


def _asked(row: dict[str, Any], where: str) -> Row:
    return {"prompt": _prompt(row, where)}


READERS = {"sft": _sft, "dpo": _pair, "reward": _pair, "iterative_dpo": _asked, "rlhf": _asked}


def _prompt(row: dict[str, Any], where: str) -> Turns:
    if isinstance(row.get("prompt"), str) and row["prompt"].strip():
        return [{"role": "user", "content": row["prompt"]}]
    return _turns(row, "prompt", where, "user")


def _split(row: dict[str, Any], field: str, where: str) -> tuple[Turns, str]:
    """What comes before the response, perhaps nothing, and the response."""
    if isinstance(row.get(field), str):
        return [], _text(row, field, where)
    said = _turns(row, field, where, "assistant")
    return said[:-1], said[-1]["content"]


def _text(row: dict[str, Any], field: str, where: str) -> str:
    if isinstance(row.get(field), str):
        return row[field]
    return _turns(row, field, where, "assistant")[-1]["content"]


def _turns(row: dict[str, Any], field: str, where: str, last: str) -> Turns:
    """Messages whose last one is of the role `last`."""
    if field not in row:
        raise DataError(
            f"{where}: no column '{field}' (has: {', '.join(row)}); rename it, or take other data"
        )
    value = row[field]
    try:
        said = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in value]
    except (TypeError, KeyError):
        said = []
    if not said or said[-1]["role"] != last:
        raise DataError(
            f"{where}: column '{field}' must be a text, or {{role, content}} messages that end with one of {last}"
        )
    return said


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
