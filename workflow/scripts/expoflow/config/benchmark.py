"""What every section of `benchmarks` says of itself."""

import hashlib
from typing import ClassVar

from expoflow.config.base import VARIANTS, Strict

# Of a judge: what changes no verdict.
INCIDENTAL = {"api_key_env", "max_cost", "prices", "concurrency", "timeout", "retries", "backoff"}


class Benchmark(Strict):
    """Base of the sections of benchmarks: their settings, and what others are to know of a benchmark.

    No other module has a table of benchmarks, or asks for one by its name.
    """

    TASKS: ClassVar[tuple[str, ...]] = ("generate",)
    """Kinds of work of engine hosts (`hosts.task.KINDS`) that its jobs ask for; a kind of its own has its name."""
    RESULTS: ClassVar[tuple[str, ...]] = VARIANTS
    """What there is a result of for itself; the difference of expo and aligned comes of it. `DIFFERENCE`: of that alone, since it
    compares answers that others have made."""
    PACKAGES: ClassVar[tuple[str, ...]] = ()
    """What it needs beside the base installation; the extra `bench` brings it."""
    REWARDS: ClassVar[tuple[str, ...]] = ()
    """Its metrics that only a reward model gives."""
    COMPARED: ClassVar[frozenset[str]] = frozenset()
    """Names of `inputs` that the comparison of two variants reads too."""
    APART: ClassVar[frozenset[str]] = frozenset()
    """Keys that the answers do not depend on beside the files: where these come from, and how much is done at a time."""
    SOURCE: ClassVar[frozenset[str]] = frozenset()
    """Keys that say where files come from, if the benchmark has any."""
    ASKED: ClassVar[str | None] = None
    """The name in `inputs` of the file that has what is asked; a rehearsal takes its first entries (`data.first`)."""

    READABLE: ClassVar[bool] = False
    """Whether its module gives its answers to a reader (`benchmarks.readable`), for the page of answers."""

    def inputs(self) -> dict[str, str]:
        """The files that its jobs read beside the model, by name."""
        return {}

    def made(self) -> bool:
        """Whether the miniature makes these files (`miniature.NAME`)."""
        return False

    def identity(self) -> str:
        """Canonical JSON of what a result depends on beside the files: of a judge no key, cost or patience."""
        judge = {"judge": INCIDENTAL} if "judge" in type(self).model_fields else {}
        return self.canonical(exclude=dict.fromkeys(self.APART, True) | judge)

    def source(self) -> str:
        """Canonical JSON of where the files come from that are not local."""
        return self.canonical(include=set(self.SOURCE))

    def source_name(self) -> str:
        """Short name of the source in file names."""
        return hashlib.sha256(self.source().encode()).hexdigest()[:8]
