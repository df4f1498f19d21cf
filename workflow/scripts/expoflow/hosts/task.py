"""Tasks: what is asked of a host, what does the work, and what stays loaded between them."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from expoflow.config.benchmarks import SECTIONS
from expoflow.files.records import Record

# What does the work of each kind of task: a function (held, arguments) that yields lists of JSON rows. It
# yields often, also empty lists, since it can be closed only there.
KINDS = {
    "generate": "expoflow.engines.answering:generate",
    "likelihood": "expoflow.scoring.likelihood:answer",
    "score": "expoflow.scoring.rewards:answer",
    "theory": "expoflow.theory.answers:answer",
}
# A benchmark's work of another kind is done by the folder of that name.
KINDS |= {
    kind: f"expoflow.benchmarks.{kind}.backend:answer"
    for section in SECTIONS.values()
    for kind in section.TASKS
    if kind not in KINDS
}
# Kinds that work with what another kind has loaded.
SHARING = {"likelihood": "generate"}


class Loaded(Protocol):
    """What can be kept loaded."""

    def close(self) -> None:
        """Free its memory."""


Thing = TypeVar("Thing", bound=Loaded)
Work = Callable[["Held", dict[str, Any]], Iterator[list[dict[str, Any]]]]


class Task(Record):
    """Plain JSON data that says what to do; `key` is that of what `Held` should hold for it."""

    kind: str
    key: str = ""
    arguments: dict[str, Any]

    def is_ready(self, held: dict[str, str]) -> bool:
        """Whether what it needs is among what is held: keys by kind."""
        return held.get(self.holds) == self.key

    @property
    def holds(self) -> str:
        """The kind under which `Held` has what the task works with."""
        return SHARING.get(self.kind, self.kind)


class Held:
    """What stays loaded between tasks: one object a kind."""

    def __init__(self, changed: Callable[[dict[str, str]], None] = lambda keys: None):
        self._changed = changed
        self._things: dict[str, tuple[str, Loaded]] = {}

    def get(self, kind: str, key: str, make: Callable[[], Thing]) -> Thing:
        """The object that `key` stands for, made where another one or none is held; that one is closed first.

        What is told of it is told before: it takes memory as soon as it is being made.
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
    """The function that does the work of a kind of task."""
    if kind not in KINDS:
        raise ValueError(f"no kind of task is called '{kind}'; there are: {', '.join(KINDS)}")
    module, _, function = KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), function)
