"""What all benchmarks by lm-eval share: ask a variant's model once, and keep its answers."""

from collections.abc import Callable, Sequence
from typing import Any

from expoflow.benchmarks.job import Job
from expoflow.benchmarks.lm_eval.answers import Asked, Graded, Kept
from expoflow.files import hashing
from expoflow.files.records import Row
from expoflow.files.resumable import Part
from expoflow.hosts import client
from expoflow.hosts.task import Task


def ask(
    job: Job,
    asked: Asked,
    key: dict[str, Any],
    rows_of: Callable[[Sequence[Graded]], list[Row]],
    record: type[Row],
) -> list[Row]:
    """The rows that `rows_of` makes from the model's answers.

    They are kept in the store by `key`, which holds everything that they depend on. The answers of
    an interrupted run are in a part file beside `job.rows`.
    """

    def make() -> list[Row]:
        part = job.rows.with_name(f".{job.rows.name}.answers.part")
        kept = Part(part, hashing.json_digest(key), Kept)
        if kept.rows:
            job.say(f"{len(kept.rows)} answers are there already, from a run that was cut off")
        return rows_of(answers(asked, kept))

    rows, kept = job.cached(job.benchmark, key, make, record)
    if kept:
        job.say(f"{job.pair}: {job.variant}: {job.benchmark}: {len(rows)} answers are kept from before")
    return rows


def answers(asked: Asked, kept: Part[Kept]) -> list[Graded]:
    """The model's answers, from a host if there is one.

    Every answer is added to `kept` as it comes.
    """

    def task() -> Task:
        arguments = asked.model_copy(update={"kept": tuple(kept.rows)}).model_dump(mode="json")
        return Task(kind="lm_eval", key=asked.key(), arguments=arguments)

    result = []
    for rows in client.run(task):
        kept.add([Kept.model_validate(row["kept"]) for row in rows if "kept" in row])
        result += [Graded.model_validate(row["graded"]) for row in rows if "graded" in row]
    return result
