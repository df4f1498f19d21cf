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


class DiedError(Exception):
    """A host ended, or never answered."""


def end_session(leader: int, head: Head) -> None:
    """Kill what a host has started, and the host itself unless that is this process; wait until it has ended."""
    mark = f"EXPOFLOW_HEAD={head.model_dump_json()}\0".encode()
    killed = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
            mine = session == leader and mark in (process / "environ").read_bytes()
            if mine and (pid := int(process.name)) != os.getpid():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    for _ in range(1000):  # at most 10 seconds: one that hangs in a driver would hold up everything
        if all(map(ended, killed)):
            break
        time.sleep(0.01)


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
            print(f"error: {death}{then}. Its log ends:\n{slot.tail()}", flush=True)
            if again:
                raise ExpoflowError(
                    f"{death}, and so did the one before; see {slot.log}, or set EXPOFLOW_HOST=off to do without hosts"
                ) from None
