"""How far a job is: a small file beside its log, written at most once a second, for who watches the job from outside.

A job says `report(done, total, unit)` as often as it likes, wherever its work is done: in its own process, in one that it has
started, or in an engine host, which hands it on to the job. Outside of a job `report` does nothing.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from expoflow.errors import shown
from expoflow.files.records import Record

FILE = "EXPOFLOW_PROGRESS"  # in the environment of a job, and of what it starts: its file
PAUSE = 1.0  # seconds between two writes


class Progress(Record):
    """`done` of `total` (None: not known) in some `unit`, and the `last` thing that was made. Times are seconds since the epoch.

    It is counted since `began`, and was told at `updated`. Speeds count from `since` on (0: from `began`), when `before` units and
    `tokens_before` tokens were there: what an earlier run has kept is no speed, and the time until a model is loaded is none either.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    done: float
    total: float | None
    unit: str
    last: str
    began: float
    updated: float
    since: float = 0
    before: float = 0
    tokens: int = 0
    tokens_before: int = 0

    @property
    def speed(self) -> float | None:
        """Units per second; None as long as there is nothing to measure."""
        return self._per_second(self.done - self.before)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second, if the job writes any."""
        return self._per_second(self.tokens - self.tokens_before)

    @property
    def measured(self) -> float:
        """Seconds that speeds count."""
        return self.updated - (self.since or self.began)

    def _per_second(self, count: float) -> float | None:
        return count / self.measured if count > 0 and self.measured > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds that were left at `updated`, if that can be said."""
        return None if self.total is None or not self.speed else max(self.total - self.done, 0) / self.speed

    def then(self, done: float, total: float | None, unit: str, last: str, tokens: int) -> "Progress":
        """What comes after it: another count if it is of another unit or total, or has begun anew."""
        if (unit, total) != (self.unit, self.total) or done < self.before:
            return begun(done, total, unit, last, tokens)
        now = time.time()
        changed = {"done": done, "last": last, "tokens": tokens, "updated": now}
        if not self.since and done > self.before:
            changed |= {"since": now, "before": done, "tokens_before": tokens}
        return self.model_copy(update=changed)


def begun(done: float, total: float | None, unit: str, last: str, tokens: int) -> Progress:
    """A count that begins now."""
    now = time.time()
    return Progress(
        done=done, total=total, unit=unit, last=last, began=now, updated=now, before=done, tokens=tokens, tokens_before=tokens
    )  # fmt: skip


def place(log: Path) -> Path:
    """Where the job of a log says how far it is."""
    return log.with_name(f".{log.name}.progress")


def read(log: Path) -> Progress | None:
    """How far the job of a log is; None if it has not said so, or has ended well or with an error.

    What a killed job has said stays there until it runs again: whether a job runs, others must tell.
    """
    try:
        found = Progress.model_validate_json(place(log).read_bytes())
    except (OSError, ValueError):
        return None
    return found.model_copy(update={"unit": shown(found.unit), "last": shown(found.last)})


class _File:
    """Where a job says how far it is: a hearer of reports, all of which it counts on."""

    def __init__(self, path: Path):
        self.path, self.unfinished = path, path.with_name(f"{path.name}.new")
        self.told: Progress | None = None

    def __call__(self, *said: Any) -> None:
        """Put the file into place, whole. It is of no use later: it need not be on disk, and a full disk is no matter.

        What is no count, or a text that no file can hold, is not told.
        """
        with suppress(OSError, ValueError):
            self.told = self.told.then(*said) if self.told else begun(*said)
            self.unfinished.write_text(self.told.model_dump_json(), encoding="utf-8")
            self.unfinished.replace(self.path)

    def remove(self) -> None:
        """Leave nothing there."""
        for path in (self.path, self.unfinished):
            with suppress(OSError):
                path.unlink(missing_ok=True)


Hearer = Callable[[float, float | None, str, str, int], None]
_hearer: Hearer | None = _File(Path(os.environ[FILE])) if os.environ.get(FILE) else None
_said: tuple[float, float | None, str, str, int] | None = None
_due = 0.0  # of time.monotonic: nothing is told before
_timer: threading.Timer | None = None  # tells then what was said last
_telling = threading.Lock()


def report(done: float, total: float | None = None, unit: str = "", last: str = "", tokens: int = 0) -> None:
    """Say that `done` of `total` units are done, those that were kept from before too. From any thread; it costs next to nothing.

    A `total` of None is not known, or still what it was. `last` is the last result in a few words, `tokens` how many tokens this job has
    written.
    """
    global _said, _timer
    if _hearer is None:
        return
    if total is None and _said is not None and unit == _said[2]:
        total = _said[1]
    _said = done, total, unit, last, tokens
    if _timer is None and _telling.acquire(blocking=False):
        try:
            if (pause := _due - time.monotonic()) <= 0:
                _tell()
            else:
                _timer = threading.Timer(pause, _tell_later)
                _timer.daemon = True
                _timer.start()
        finally:
            _telling.release()


def _tell() -> None:
    global _due
    _due = time.monotonic() + PAUSE
    if _hearer and _said:
        _hearer(*_said)


def _tell_later() -> None:
    global _timer
    with _telling:
        _timer = None
        _tell()


@contextmanager
def heard_by(hearer: Hearer) -> Iterator[None]:
    """Have `hearer` told, with the arguments of `report`, what is reported within the block."""
    _listen(hearer)
    try:
        yield
    finally:
        _listen(None)


def _listen(hearer: Hearer | None) -> None:
    global _hearer, _said, _due, _timer
    with _telling:
        if _timer:
            _timer.cancel()
        _hearer, _said, _due, _timer = hearer, None, 0.0, None


@contextmanager
def of_job(log: Path) -> Iterator[None]:
    """Tell in the file beside `log` what is reported within the block, also by processes that it starts; at its end the file goes."""
    file = _File(place(log).absolute())
    file.remove()
    os.environ[FILE] = str(file.path)
    try:
        with heard_by(file):
            yield
    finally:
        os.environ.pop(FILE, None)
        file.remove()
