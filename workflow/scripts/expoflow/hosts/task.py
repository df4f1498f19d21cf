"""Tasks for a host, the functions that do them, and what stays loaded between tasks."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from expoflow.config.benchmarks import SECTIONS
from expoflow.files.records import Record

# For each kind of task the function (held, arguments) that does the work. It yields lists of JSON
# rows. It yields often, even empty lists, since it can be stopped only there.
KINDS = {
    "generate": "expoflow.engines.answering:generate",
    "likelihood": "expoflow.scoring.likelihood:answer",
    "score": "expoflow.scoring.rewards:answer",
    "theory": "expoflow.theory.answers:answer",
}
# If a benchmark has its own kind of work, the folder of that name does it.
KINDS |= {
    kind: f"expoflow.benchmarks.{kind}.backend:answer"
    for section in SECTIONS.values()
    for kind in section.TASKS
    if kind not in KINDS
}
# Kinds that use what another kind has loaded.
SHARING = {"likelihood": "generate"}


class Loaded(Protocol):
    """An object that can be kept loaded."""

    def close(self) -> None:
        """Free its memory."""


Thing = TypeVar("Thing", bound=Loaded)
Work = Callable[["Held", dict[str, Any]], Iterator[list[dict[str, Any]]]]


class Task(Record):
    """Plain JSON data that says what to do; `key` identifies what `Held` should hold for it."""

    kind: str
    key: str = ""
    arguments: dict[str, Any]

    def is_ready(self, held: dict[str, str]) -> bool:
        """Return whether what the task needs is held; `held` has keys by kind."""
        return held.get(self.holds) == self.key

    @property
    def holds(self) -> str:
        """The kind under which `Held` has what the task needs."""
        return SHARING.get(self.kind, self.kind)


class Held:
    """What stays loaded between tasks: one object per kind."""

    def __init__(self, changed: Callable[[dict[str, str]], None] = lambda keys: None):
        self._changed = changed
        self._things: dict[str, tuple[str, Loaded]] = {}

    def get(self, kind: str, key: str, make: Callable[[], Thing]) -> Thing:
        """Return the object for `key`, made unless it is held; another of its kind is closed first.

        `changed` is called before the object is made, since it takes memory from then on.
        """
        if kind in self._things and self._things[kind][0] == key:
            return self._things[kind][1]
        self._drop(kind)
        self._tell(**{kind: key})
        try:
            self._things[kind] = (key, make())
        finally:
            self._tell()
        return self._things[kind][1]

    def clear(self) -> None:
        """Close everything."""
        for kind in [*self._things]:
            self._drop(kind)

    def _drop(self, kind: str) -> None:
        if kind in self._things:
            _, thing = self._things.pop(kind)
            self._tell()
            thing.close()

    def _tell(self, **coming: str) -> None:
        self._changed({kind: key for kind, (key, _) in self._things.items()} | coming)


def work(kind: str) -> Work:
    """Return the function that does the work of a kind of task."""
    if kind not in KINDS:
        raise ValueError(f"no kind of task is called '{kind}'; there are: {', '.join(KINDS)}")
    module, _, function = KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), function)
