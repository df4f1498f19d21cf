"""How far a task is, by the rows of it that pass: told to who watches the job."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from expoflow.hosts.task import Task
from expoflow.system import progress

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """What a kind of task counts: its `unit`, how many there are `of` its arguments in all, how many `before`, and in some rows."""

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
    # the rows of a point come together, and those of its slopes
    "theory": Kind(
        "points",
        of=lambda asked: (
            len(asked["margins"]) + len(asked["responses"]) + bool(asked["margins"] and asked["towards"])
        ),
        rows=lambda rows: 1,
    ),
}
# Benchmarks keep what a model answers; what they make of it comes at their end. Only they know how much they will ask.
OTHERS = Kind(
    "answers",
    of=lambda asked: None,
    before=lambda asked: len(asked.get("kept", ())),
    rows=lambda rows: sum("kept" in row for row in rows),
)


class Count:
    """The rows of a task; those of a second host count on."""

    def __init__(self, task: Task):
        self.kind = KINDS.get(task.kind, OTHERS)
        self.done, self.total = self.kind.before(task.arguments), self.kind.of(task.arguments)
        self.tokens = 0
        self._report()

    def add(self, rows: Rows) -> None:
        """Count rows that have come."""
        self.done += self.kind.rows(rows)
        self.tokens += sum(row.get("response_tokens", 0) for row in rows)
        self._report()

    def passing(self, found: Iterator[Rows]) -> Iterator[Rows]:
        """Hand rows on, each counted when it has been taken."""
        for rows in found:
            yield rows
            self.add(rows)

    def _report(self) -> None:
        progress.report(self.done, self.total, self.kind.unit, tokens=self.tokens)
