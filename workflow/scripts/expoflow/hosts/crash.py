"""A host that dies during a task, as if vLLM crashes: it is ended whole, and another is tried."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expoflow.errors import ExpoflowError
from expoflow.hosts.head import Head
from expoflow.hosts.task import Task
from expoflow.system.processes import ended

if TYPE_CHECKING:
    from expoflow.hosts.slot import Slot


TRACKER = b"multiprocessing.resource_tracker"  # in the command of the process that frees shared memory


class DiedError(Exception):
    """A host has ended, or never answered."""


class GivenUpError(Exception):
    """Nobody needs the result any more."""


def end_session(leader: int, head: Head) -> None:
    """Kill a host's processes, and the host itself unless it is this process; wait for their end.

    Python's own tracker of shared memory is spared. It ends after all processes that share the
    memory, and then removes it.
    """
    members = [pid for pid in _session(leader) if pid != os.getpid()]
    if leader != os.getpid() and not any(_started_for(head, pid) for pid in members):
        return  # another process has this number by now
    ending = []
    for pid in members:
        with suppress(OSError):
            if TRACKER not in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
            elif leader == os.getpid():  # it ends after this process
                continue
            ending.append(pid)
    for _ in range(1000):  # at most 10 seconds: a process that hangs in a driver must not block everything
        if all(map(ended, ending)):
            break
        time.sleep(0.01)


def _session(leader: int) -> Iterator[int]:
    """Yield the processes of a session. Its number is not reused while one of them lives."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                yield int(process.name)


def _started_for(head: Head, pid: int) -> bool:
    """Return whether a process has the environment of this head's hosts.

    One that has renamed itself, as vLLM's workers do, has none.
    """
    with suppress(OSError):
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return f"EXPOFLOW_HEAD={head.model_dump_json()}".encode() in words
    return False


def tried_twice(slot: "Slot", make: Callable[[], Task]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a task that a slot's host does; if it dies, those of another host, once.

    `make` returns the task, and is called again for the second host. Raises ExpoflowError if that
    one dies too, or if the main Snakemake process has ended.
    """
    for again in (False, True):
        try:
            yield from slot.ask(make())
            return
        except DiedError as death:
            slot.head.require()
            then = "" if again else "; starting another one"
            tail = f". Its log ends:\n{slot.tail()}" if slot.log else ""
            print(f"error: {death}{then}{tail}", flush=True)
            if again:
                see = f"see {slot.log}" if slot.log else "its messages are above"
                without = "" if slot.gpu else ", or set EXPOFLOW_HOST=off to do without hosts"
                raise ExpoflowError(f"{death}, and so did the one before; {see}{without}") from None
