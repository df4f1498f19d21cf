"""How far a job is: a small file beside its log, written at most once a second."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from expoflow.files.atomic import write_text

EVERY = 1.0  # seconds between two writes


@dataclass
class Progress:
    """`done` of `total` (None: not known) in `unit`; the last result; when it began and was written, in epoch seconds."""

    done: float
    total: float | None
    unit: str
    last: str
    began: float
    updated: float


_log: Path | None = None
_now: Progress | None = None


def place(log: Path) -> Path:
    """The progress file of the job that writes `log`."""
    return log.with_name(f".{log.name}.progress")


def begin(log: Path | None) -> None:
    """From now on this process is the job that writes `log`; with None it is none any more, and its file goes."""
    global _log, _now
    if log is None and _log is not None:
        place(_log).unlink(missing_ok=True)
    _log, _now = log, None


def report(done: float, total: float | None, unit: str, last: str = "") -> None:
    """Say how far the job is; outside of a job this does nothing."""
    global _now
    now = time.time()
    if _log is None or (_now and now < _now.updated + EVERY):
        return
    _now = Progress(done, total, unit, last, _now.began if _now else now, now)
    with suppress(OSError):  # a full disk ends the job by itself
        write_text(place(_log), json.dumps(asdict(_now)))


def read(log: Path) -> Progress | None:
    """How far the job is that writes `log`; None if it does not say."""
    try:
        return Progress(**json.loads(place(log).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
