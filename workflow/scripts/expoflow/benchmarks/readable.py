"""The answers of benchmarks as a person reads them: prompt, response, and what was said of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from expoflow import benchmarks
from expoflow.errors import DataError


@dataclass(frozen=True)
class Answer:
    """One response of a variant: `item` and `sample` name it, the same for all variants."""

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
    """The answers in a variant's `rows`; `inputs` are the files that the benchmark reads beside the model, by name.

    The section of the benchmark says `READABLE`: its module has the function `readable(inputs, rows)`. Raises DataError if a response is to
    a prompt that is not there.
    """
    try:
        return benchmarks.module(benchmark).readable(inputs, rows)
    except (KeyError, IndexError) as error:
        asked = ", ".join(map(str, inputs.values()))
        raise DataError(
            f"{rows}: has a response to prompt {error}, which is not in {asked}; delete {rows} and run snakemake again"
        ) from None
