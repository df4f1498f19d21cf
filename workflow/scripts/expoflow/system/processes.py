"""Processes: whether one is the same as before or has ended, and which ones run a program."""

import os
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def started(pid: int) -> int:
    """Return a process' start time in ticks since boot; ProcessLookupError if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return int(text.rpartition(")")[2].split()[19])


def running(program: str) -> Iterator[tuple[int, Path]]:
    """Yield id and working folder of each process of this machine whose command names `program`.

    This process and its ancestors, whose commands may name the program too, are left out. Without
    Linux's /proc there are none.
    """
    own, parent = [os.getpid()], os.getppid()
    while parent > 1:
        own.append(parent)
        try:
            parent = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):  # another user's process, or one that has just ended
            words = (process / "cmdline").read_bytes().split(b"\0")
            named = any(word.rsplit(b"/")[-1] == program.encode() for word in words)
            if named and int(process.name) not in own:
                yield int(process.name), (process / "cwd").readlink()


def readable(descriptor: int, milliseconds: int = 0) -> bool:
    """Return whether there is data or an end of file to read, now or within a time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))


def ended(pid: int) -> bool:
    """Return whether a process has ended, even if its parent has not waited for it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    over = readable(descriptor)
    os.close(descriptor)
    return over
