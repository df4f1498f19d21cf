"""Rows for TRL's trainers, as JSON lines: conversations from a dataset's files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from expoflow.data import images
from expoflow.data.messages import conversation, question
from expoflow.data.prompts import plain, prompt_id
from expoflow.data.rows import rows
from expoflow.errors import DataError
from expoflow.results import Message, Prompt

Turns = list[dict[str, str]]
Row = dict[str, Turns]


def example(prompt: Turns, response: str) -> Row:
    """Return a row of SFT: a prompt and the response to imitate."""
    return {"prompt": prompt, "completion": [_answer(response)]}


def pair(prompt: Turns, chosen: str, rejected: str) -> Row:
    """Return a row of DPO or of a reward model: a prompt, the preferred response, the other one."""
    return {"prompt": prompt, "chosen": [_answer(chosen)], "rejected": [_answer(rejected)]}


def turns(prompt: Prompt) -> Turns:
    """Return a prompt's messages as plain data."""
    return plain(prompt.messages)


def read(recipe: str, files: Sequence[Path], fraction: float) -> list[Row]:
    """Return the first `fraction` of the rows of a dataset's files, as `recipe` needs them.

    The columns are `messages`, or `prompt` and `completion` (sft); `prompt`, `chosen` and
    `rejected` (dpo, reward); `prompt` (iterative_dpo, rlhf). `chosen` and `rejected` may begin with
    the prompt, as in UltraFeedback binarized; `prompt` may then be absent. Raises DataError, which
    names the row and what it lacks.
    """
    found = [each for path in files for each in rows(path)]
    kept = found[: round(fraction * len(found))]
    if not kept:
        raise DataError(f"fraction {fraction} of {len(found)} rows keeps no row; raise fraction")
    for where, row in kept:
        images.require_none(row, where)
    return [READERS[recipe](row, where) for where, row in kept]


def distinct_prompts(read_rows: Iterable[Row]) -> list[Prompt]:
    """Return the distinct prompts of rows, in order."""
    prompts: dict[str, Prompt] = {}
    for row in read_rows:
        messages = [Message(**turn) for turn in row["prompt"]]
        name = prompt_id(messages)
        prompts.setdefault(name, Prompt(prompt_id=name, messages=messages))
    return list(prompts.values())


def _sft(row: dict[str, Any], where: str) -> Row:
    if "messages" in row:
        before, answer = _answered(row, "messages", where)
        return {"messages": [*before, _answer(answer)]}
    return {"prompt": _prompt(row, where), "completion": [_answer(_text(row, "completion", where))]}


def _pair(row: dict[str, Any], where: str) -> Row:
    before, chosen = _split(row, "chosen", where)
    _, rejected = _split(row, "rejected", where)
    return pair(before or _prompt(row, where), chosen, rejected)


def _asked(row: dict[str, Any], where: str) -> Row:
    return {"prompt": _prompt(row, where)}


READERS = {"sft": _sft, "dpo": _pair, "reward": _pair, "iterative_dpo": _asked, "rlhf": _asked}


def _prompt(row: dict[str, Any], where: str) -> Turns:
    messages, answer = question(_value(row, "prompt", where), where, "prompt")
    if answer is not None:
        raise DataError(f"{where}: column 'prompt' ends with an answer; it must end with the question")
    return plain(messages)


def _split(row: dict[str, Any], field: str, where: str) -> tuple[Turns, str]:
    """Return the messages before the response, perhaps none, and the response."""
    if isinstance(row.get(field), str):
        return [], row[field]
    return _answered(row, field, where)


def _text(row: dict[str, Any], field: str, where: str) -> str:
    return _split(row, field, where)[1]


def _answered(row: dict[str, Any], field: str, where: str) -> tuple[Turns, str]:
    """Return the messages before a conversation's final answer, and that answer."""
    messages, answer = conversation(_value(row, field, where), where, field)
    if answer is None:
        raise DataError(
            f"{where}: column '{field}' must be a text, or messages that end with one of the assistant"
        )
    return plain(messages), answer


def _value(row: dict[str, Any], field: str, where: str) -> Any:
    if field not in row:
        raise DataError(
            f"{where}: no column '{field}' (has: {', '.join(row)}); rename it, or take other data"
        )
    return row[field]


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
