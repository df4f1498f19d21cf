"""The progress of a task, counted by the rows that it returns and reported for the job."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from expoflow.hosts.task import Task
from expoflow.system import progress

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """What a kind of task counts, in its `unit`.

    `of` returns the total for the task's arguments, `before` the number done earlier, and `rows`
    the number in some rows.
    """

    unit: str
    of: Callable[[dict[str, Any]], int | None]
    before: Callable[[dict[str, Any]], int] = lambda asked: 0
    rows: Callable[[Rows], int] = len


KINDS = {
    "generate": Kind(
        "responses",
        of=lambda asked: len(asked["prompts"]) * asked["config"]["samples"],
        before=lambda asked: len(asked["done"]),
    ),
    "score": Kind("rewards", of=lambda asked: len(asked["generations"])),
    "likelihood": Kind("likelihoods", of=lambda asked: len(asked["models"]) * len(asked["generations"])),
    # the rows of a point come together, and so do those of its slopes
    "theory": Kind(
        "points",
        of=lambda asked: (
            len(asked["margins"]) + len(asked["responses"]) + bool(asked["margins"] and asked["towards"])
        ),
        rows=lambda rows: 1,
    ),
}
# Benchmarks keep a model's answers; their results come at the end. Only they know how many they
# will ask.
OTHERS = Kind(
    "answers",
    of=lambda asked: None,
    before=lambda asked: len(asked.get("kept", ())),
    rows=lambda rows: sum("kept" in row for row in rows),
)


class Count:
    """The count of a task's rows; those of a second host are added."""

    def __init__(self, task: Task):
        self.kind = KINDS.get(task.kind, OTHERS)
        self.done, self.total = self.kind.before(task.arguments), self.kind.of(task.arguments)
        self.tokens = 0
        self._report()

    def add(self, rows: Rows) -> None:
        """Count rows that have arrived."""
        self.done += self.kind.rows(rows)
        self.tokens += sum(row.get("response_tokens", 0) for row in rows)
        self._report()

    def passing(self, found: Iterator[Rows]) -> Iterator[Rows]:
        """Pass rows on, and count each list once it has been taken."""
        for rows in found:
            yield rows
            self.add(rows)

    def _report(self) -> None:
        progress.report(self.done, self.total, self.kind.unit, tokens=self.tokens)
