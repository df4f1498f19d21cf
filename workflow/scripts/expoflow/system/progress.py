"""How far a job is: a small file beside its log for others, written at most once a second.

A job calls `report(done, total, unit)` as often as it likes, wherever its work is done: in its own
process, in one that it has started, or in an engine host, which passes it on to the job. Outside of
a job `report` does nothing.
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

FILE = "EXPOFLOW_PROGRESS"  # environment variable of a job and its child processes: the file's path
PAUSE = 1.0  # seconds between two writes


class Progress(Record):
    """`done` of `total` units (None: unknown), and the `last` result. Times are epoch seconds.

    Counting began at `began`; the last report was at `updated`. Speeds are measured from `since`
    (0: from `began`), when `before` units and `tokens_before` tokens were done. So neither what an
    earlier run has kept nor the loading of a model counts towards the speed.
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
        """Units per second; None until there is something to measure."""
        return self._per_second(self.done - self.before)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second, if the job writes any."""
        return self._per_second(self.tokens - self.tokens_before)

    @property
    def measured(self) -> float:
        """Seconds over which speeds are measured."""
        return self.updated - (self.since or self.began)

    def _per_second(self, count: float) -> float | None:
        return count / self.measured if count > 0 and self.measured > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds that were left at `updated`; None if unknown."""
        return None if self.total is None or not self.speed else max(self.total - self.done, 0) / self.speed

    def then(self, done: float, total: float | None, unit: str, last: str, tokens: int) -> "Progress":
        """Return the next progress; a new count if unit or total changed, or if it starts again."""
        if (unit, total) != (self.unit, self.total) or done < self.before:
            return begun(done, total, unit, last, tokens)
        now = time.time()
        changed = {"done": done, "last": last, "tokens": tokens, "updated": now}
        if not self.since and done > self.before:
            changed |= {"since": now, "before": done, "tokens_before": tokens}
        return self.model_copy(update=changed)


def begun(done: float, total: float | None, unit: str, last: str, tokens: int) -> Progress:
    """Return a count that begins now."""
    now = time.time()
    return Progress(
        done=done, total=total, unit=unit, last=last, began=now, updated=now, before=done, tokens=tokens, tokens_before=tokens
    )  # fmt: skip


def place(log: Path) -> Path:
    """Return the file with the progress of the job with this log."""
    return log.with_name(f".{log.name}.progress")


def read(log: Path) -> Progress | None:
    """Return the progress of this log's job; None if it reported none, or has ended by itself.

    A killed job's file stays until the job runs again. So the file does not show that the job runs.
    """
    try:
        found = Progress.model_validate_json(place(log).read_bytes())
    except (OSError, ValueError):
        return None
    return found.model_copy(update={"unit": shown(found.unit), "last": shown(found.last)})


class _File:
    """A job's progress file: a hearer of reports, which keeps one count over all of them."""

    def __init__(self, path: Path):
        self.path, self.unfinished = path, path.with_name(f"{path.name}.new")
        self.told: Progress | None = None

    def __call__(self, *said: Any) -> None:
        """Replace the file as a whole. It need not reach the disk, and a full disk is ignored.

        Values that are not a count, and texts that no file can hold, are ignored too.
        """
        with suppress(OSError, ValueError):
            self.told = self.told.then(*said) if self.told else begun(*said)
            self.unfinished.write_text(self.told.model_dump_json(), encoding="utf-8")
            self.unfinished.replace(self.path)

    def remove(self) -> None:
        """Remove the file."""
        for path in (self.path, self.unfinished):
            with suppress(OSError):
                path.unlink(missing_ok=True)


Hearer = Callable[[float, float | None, str, str, int], None]
_hearer: Hearer | None = _File(Path(os.environ[FILE])) if os.environ.get(FILE) else None
_said: tuple[float, float | None, str, str, int] | None = None
_due = 0.0  # by time.monotonic(): no report is passed on before
_timer: threading.Timer | None = None  # passes on the last report then
_telling = threading.Lock()


def report(done: float, total: float | None = None, unit: str = "", last: str = "", tokens: int = 0) -> None:
    """Report that `done` of `total` units are done, including those kept from before.

    Any thread may call this, and it costs next to nothing. A `total` of None is unknown, or the
    same as before. `last` is the last result in a few words. `tokens` is the number of tokens that
    this job has written.
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
    """Call `hearer`, with the arguments of `report`, for reports within the block."""
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
    """Write the block's reports (also of child processes) to a file beside `log`; remove it then."""
    file = _File(place(log).absolute())
    file.remove()
    os.environ[FILE] = str(file.path)
    try:
        with heard_by(file):
            yield
    finally:
        os.environ.pop(FILE, None)
        file.remove()
