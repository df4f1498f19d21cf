"""Preferences: a prompt with a better and a worse response, from a file, the hub or the built-in
world."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from expoflow.config.benchmarks import RewardCheck
from expoflow.config.sources import DataConfig
from expoflow.data import images, messages, rows
from expoflow.errors import CheckpointError, DataError
from expoflow.files.records import Record
from expoflow.results import Message

MINIATURE_PAIRS = 500


class Preference(Record):
    """A line of results/benchmarks/preferences.jsonl. Both responses answer the conversation
    `messages`."""

    messages: list[Message]
    chosen: str
    rejected: str
    subset: str | None = None


def problems(config: RewardCheck, where: str = "reward_check.file") -> Iterator[str]:
    """The problems of a file, with remedies; `where` is its place in the config."""
    if config.file is not None:
        try:
            gather(config, seed=0)
        except DataError as error:
            yield f"{where}: {error}"


def gather(config: RewardCheck, seed: int) -> list[Preference]:
    """All preferences of the configured source. `seed` is for the miniature. Raises DataError."""
    if config.miniature:
        return list(miniature(seed))
    return read(_from_hub(config) if config.hub else [Path(config.file)], config)


def miniature(seed: int) -> Iterator[Preference]:
    """Pairs that the reward model was not trained on, on its prompts, labelled by an almost perfect
    annotator."""
    writers = importlib.import_module("expoflow.miniature.writers")  # files do not depend on it
    for pair in writers.reward_pairs(MINIATURE_PAIRS, seed, "reward check"):
        yield Preference(
            messages=pair.prompt.messages,
            chosen=pair.chosen,
            rejected=pair.rejected,
            subset=pair.prompt.meta["task"],
        )


def read(paths: Sequence[Path], config: RewardCheck) -> list[Preference]:
    """The preferences in files with the configured columns. Raises DataError, which names the
    row."""
    preferences = [_preference(row, config, where) for path in paths for where, row in rows.rows(path)]
    if not preferences:
        raise DataError(f"'{paths[0]}' has no preferences; write one per row")
    return preferences


def _preference(row: dict[str, Any], config: RewardCheck, where: str) -> Preference:
    images.require_none(row, where)
    columns = [config.prompt, config.chosen, config.rejected, *([config.subset] if config.subset else [])]
    if missing := [column for column in columns[1:] if row.get(column) is None]:
        raise DataError(
            f"{where}: no column '{missing[0]}' (has: {', '.join(row)}); set prompt, chosen, rejected and subset"
            " of reward_check to the columns' names"
        )
    before, chosen = _response(row[config.chosen], where, config.chosen)
    other, rejected = _response(row[config.rejected], where, config.rejected)
    if row.get(config.prompt):
        asked, answer = messages.question(row[config.prompt], where, config.prompt)
        if answer is not None:
            raise DataError(
                f"{where}: column '{config.prompt}' ends with an answer; name the one that ends with the question"
            )
    elif before and before == other:
        asked = before
    else:
        raise DataError(
            f"{where}: no prompt; give one as column '{config.prompt}', or set reward_check.prompt"
        )
    subset = str(row[config.subset]) if config.subset else None
    return Preference(messages=asked, chosen=chosen, rejected=rejected, subset=subset)


def _response(value: Any, where: str, column: str) -> tuple[list[Message], str]:
    """The messages before a response (if it is given as a conversation), and the text of the
    response."""
    if isinstance(value, str):
        return [], value
    before, answer = messages.conversation(value, where, column)
    if answer is None:
        raise DataError(f"{where}: column '{column}' does not end with an answer; name another column")
    return before, answer


def _from_hub(config: RewardCheck) -> list[Path]:
    """The files of a split of a hub dataset."""
    from expoflow.hub import download

    source = DataConfig(hub=config.hub, revision=config.revision, split=config.split)
    try:
        return download.dataset(source)[1]
    except (CheckpointError, DataError) as error:
        raise DataError(
            f"dataset '{config.hub}': split '{config.split}' cannot be read ({error}); correct reward_check.split"
        ) from None
