"""The file of votes that a pair's page answers.html saves, and its checks before any job."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from expoflow.config.base import Name
from expoflow.config.benchmarks import HumanBenchmark
from expoflow.data.rows import rows
from expoflow.errors import DataError, first_of
from expoflow.files.records import Record, first_problem
from expoflow.paths import RESULTS

HELD_OUT = "reward"  # the name that votes have for the responses of the benchmark `reward`
DIGITS = 16

Side = Literal["aligned", "expo"]
Digest = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{DIGITS}}}$")]


class Vote(Record):
    """A line of the file: which of two answers to a prompt a voter preferred, blind.

    `prompts` is the sweep's prompt set, or `HELD_OUT`. `aligned` and `expo` are the digests of the
    answers that the voter read (`answer_digest`). `left` is the variant on the left.
    """

    pair: Name
    prompts: Name
    prompt_id: str
    sample: int = Field(ge=0)
    aligned: Digest
    expo: Digest
    winner: Literal["aligned", "expo", "tie"]
    left: Side
    voter: str
    time: str


def answer_digest(response: str) -> str:
    """The digest of an answer in a vote: the first digits of the sha256 of its text in UTF-8."""
    return hashlib.sha256(response.encode()).hexdigest()[:DIGITS]


def read_votes(path: Path) -> list[Vote]:
    """All votes of a file, in its order.

    Raises DataError if the file cannot be read, or if a line is not a vote.
    """
    votes = []
    for where, row in rows(path):
        try:
            votes.append(Vote.model_validate(row))
        except ValidationError as error:
            raise DataError(
                f"{where}: is not a vote ({first_problem(error)}); correct or remove the line"
            ) from None
    return votes


def pair_problems(section: HumanBenchmark, pair: str) -> Iterator[str]:
    """Why there are no votes on a pair's answers."""
    where, file, page = "benchmarks.human.votes", Path(section.votes), RESULTS.answers_page(pair)
    if not file.is_file():
        yield f"{where}: no file '{file}'; vote on {page} and save the votes there, or remove the benchmark"
        return
    try:
        votes = read_votes(file)
    except DataError as error:
        yield f"{where}: {error}"
        return
    if not any(vote.pair == pair for vote in votes):
        others = first_of(sorted({vote.pair for vote in votes})) if votes else "none"
        yield (
            f"pairs.{pair}.{where}: '{file}' has no vote on this pair (pairs in it: {others}); vote on {page}, or set human in"
            " the benchmarks of other pairs only"
        )


def notes(section: HumanBenchmark, pair: str) -> Iterator[str]:
    """The number of votes; empty if `pair_problems` finds something."""
    if any(pair_problems(section, pair)):
        return
    own = [vote for vote in read_votes(Path(section.votes)) if vote.pair == pair]
    prompts, voters = len({vote.prompt_id for vote in own}), len({vote.voter for vote in own})
    yield f"votes on {pair}: {len(own)} (prompts: {prompts}, voters: {voters}); no model is run for them"
