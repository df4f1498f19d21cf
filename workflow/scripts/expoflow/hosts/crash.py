"""A host that dies in the middle of a task, as with a vLLM that crashes: it is ended whole, and another one is tried."""

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


TRACKER = b"multiprocessing.resource_tracker"  # in the command of the process that removes shared memory


class DiedError(Exception):
    """A host ended, or never answered."""


class GivenUpError(Exception):
    """Nobody wants any more what is waited for."""


def end_session(leader: int, head: Head) -> None:
    """Kill what a host has started, and the host itself unless that is this process; wait until it has ended.

    Python's own tracker of shared memory is let live: it ends after all that share the memory, and then removes it.
    """
    members = [pid for pid in _session(leader) if pid != os.getpid()]
    if leader != os.getpid() and not any(_started_for(head, pid) for pid in members):
        return  # the number is another's by now
    ending = []
    for pid in members:
        with suppress(OSError):
            if TRACKER not in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
            elif leader == os.getpid():  # it ends after this process
                continue
            ending.append(pid)
    for _ in range(1000):  # at most 10 seconds: one that hangs in a driver would hold up everything
        if all(map(ended, ending)):
            break
        time.sleep(0.01)


def _session(leader: int) -> Iterator[int]:
    """The processes of a session: all of them belong together, as its number is given to no other while one lives."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                yield int(process.name)


def _started_for(head: Head, pid: int) -> bool:
    """Whether a process has the environment of this head's hosts; one that has renamed itself, as vLLM's workers do, has none."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return f"EXPOFLOW_HEAD={head.model_dump_json()}".encode() in words
    return False


def tried_twice(slot: "Slot", make: Callable[[], Task]) -> Iterator[list[dict[str, Any]]]:
    """The rows of a task that a slot's host does; if it dies, those of another host, once.

    `make` says what is to be done, and is called again for the second host. Raises ExpoflowError if that one dies too,
    or if the main Snakemake process has ended.
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
                see = f"see {slot.log}" if slot.log else "what it said stands above"
                without = "" if slot.gpu else ", or set EXPOFLOW_HOST=off to do without hosts"
                raise ExpoflowError(f"{death}, and so did the one before; {see}{without}") from None
