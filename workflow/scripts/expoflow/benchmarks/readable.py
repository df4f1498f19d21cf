"""The answers of benchmarks for human readers: prompt, response, and judgment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from expoflow import benchmarks
from expoflow.errors import DataError


@dataclass(frozen=True)
class Answer:
    """One response of a variant. `item` and `sample` identify it across variants."""

    item: str
    prompt: str
    response: str
    response_tokens: int
    finish_reason: str
    sample: int = 0
    reward: float | None = None
    quality: float | None = None
    verdict: str | None = None
    """What the judge decided, in words."""
    judgment: str | None = None
    """What the judge wrote."""


def answers(benchmark: str, inputs: Mapping[str, Path], rows: Path) -> list[Answer]:
    """The answers in a variant's `rows`.

    `inputs` has, by name, the files that the benchmark reads beside the model. The section of the
    benchmark says `READABLE` if its module has a function `readable(inputs, rows)`. Raises
    DataError if a response belongs to a prompt that does not exist.
    """
    try:
        return benchmarks.module(benchmark).readable(inputs, rows)
    except (KeyError, IndexError) as error:
        asked = ", ".join(map(str, inputs.values()))
        raise DataError(
            f"{rows}: has a response to prompt {error}, which is not in {asked}; delete {rows} and run snakemake again"
        ) from None
