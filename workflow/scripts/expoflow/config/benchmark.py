"""The base class of the sections of `benchmarks`."""

import hashlib
from typing import ClassVar

from expoflow.config.base import VARIANTS, Strict

# Keys of a judge that change no verdict.
INCIDENTAL = {"api_key_env", "max_cost", "prices", "concurrency", "timeout", "retries", "backoff"}


class Benchmark(Strict):
    """Base of the sections of benchmarks: their settings, and what other modules need to know about
    them.

    No other module has a table of benchmarks or refers to one by name.
    """

    TASKS: ClassVar[tuple[str, ...]] = ("generate",)
    """Kinds of work (`hosts.task.KINDS`) that its jobs ask engine hosts for. A kind of its own has
    the benchmark's name."""
    RESULTS: ClassVar[tuple[str, ...]] = VARIANTS
    """The variants that have a result of their own; the difference between expo and aligned is
    computed from them. `DIFFERENCE`: only the difference has a result, since the benchmark compares
    existing answers."""
    PACKAGES: ClassVar[tuple[str, ...]] = ()
    """Packages that it needs besides the base installation. The extra `bench` installs them."""
    REWARDS: ClassVar[tuple[str, ...]] = ()
    """The metrics that need a reward model."""
    COMPARED: ClassVar[frozenset[str]] = frozenset()
    """Names of `inputs` that the comparison of two variants reads too."""
    APART: ClassVar[frozenset[str]] = frozenset()
    """Keys that the answers do not depend on: where the files come from, and how much is done at a
    time."""
    SOURCE: ClassVar[frozenset[str]] = frozenset()
    """Keys that say where files come from, if the benchmark has any."""
    ASKED: ClassVar[str | None] = None
    """The name in `inputs` of the file with the questions. A rehearsal takes its first entries
    (`data.first`)."""

    READABLE: ClassVar[bool] = False
    """Whether its module provides its answers (`benchmarks.readable`) for the page of answers."""

    def inputs(self) -> dict[str, str]:
        """The files that its jobs read besides the model, by name."""
        return {}

    def made(self) -> bool:
        """Whether the miniature makes these files (`miniature.NAME`)."""
        return False

    def identity(self) -> str:
        """Canonical JSON of what a result depends on besides the files.

        A judge's API key, cost limits, timeouts and retries are left out.
        """
        judge = {"judge": INCIDENTAL} if "judge" in type(self).model_fields else {}
        return self.canonical(exclude=dict.fromkeys(self.APART, True) | judge)

    def source(self) -> str:
        """Canonical JSON of where the non-local files come from."""
        return self.canonical(include=set(self.SOURCE))

    def source_name(self) -> str:
        """Short name of the source in file names."""
        return hashlib.sha256(self.source().encode()).hexdigest()[:8]
