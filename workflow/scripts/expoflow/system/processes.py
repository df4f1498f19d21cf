"""Processes: whether one is the same as before, and whether it has ended."""

import os
import select
from pathlib import Path


def started(pid: int) -> int:
    """The start time of a process in clock ticks since boot; ProcessLookupError where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return int(text.rpartition(")")[2].split()[19])


def readable(descriptor: int, milliseconds: int = 0) -> bool:
    """Whether there is something to read, or an end, now or within a time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))


def ended(pid: int) -> bool:
    """Whether a process has ended, also if nobody has waited for it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    over = readable(descriptor)
    os.close(descriptor)
    return over
