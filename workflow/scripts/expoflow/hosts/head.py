"""The head of hosts: the process beside which they live, usually the main Snakemake process."""

import atexit
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from expoflow.errors import ExpoflowError
from expoflow.files.records import Record
from expoflow.system import gpu_memory
from expoflow.system.gpus import gpus, require_known
from expoflow.system.processes import readable, started


def can_host() -> bool:
    """Return whether hosts are possible, which needs Linux."""
    return hasattr(os, "pidfd_open")


class Head(Record):
    """The process beside which hosts live, never longer than it.

    It is the main Snakemake process, a job with its own host, or the Snakemake process of a SLURM
    `job` in which several jobs run (`hosts.keeper`).

    `start` is its start time, which distinguishes it from a later process with the same pid.
    `slots` has the GPU of every slot, or None for a CPU core. A host ends after `idle` seconds
    without a task. `memory` is the smallest GPU's memory in bytes. `asked` is the number of GPUs
    that the config sets for the models in some folders.
    """

    pid: int
    start: int
    folder: Path
    slots: tuple[str | None, ...]
    idle: float = 60
    memory: int | None = None
    asked: tuple[tuple[str, int], ...] = ()
    job: str = ""

    @classmethod
    def here(cls, slots: tuple[str | None, ...], idle: float = 60) -> "Head":
        """Return this process as a head."""
        pid, start = os.getpid(), started(os.getpid())
        folder = Path(tempfile.gettempdir()) / f"expoflow-{os.getuid()}-{pid}-{start}"
        return cls(pid=pid, start=start, folder=folder, slots=slots, idle=idle)

    def is_here(self) -> bool:
        """Return whether the head is this process."""
        return self.pid == os.getpid()

    def watch(self) -> int | None:
        """Return a file descriptor that is readable once the process has ended; None if it has."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        with suppress(ProcessLookupError):
            if started(self.pid) == self.start and not readable(descriptor):
                return descriptor
        os.close(descriptor)
        return None

    def require(self) -> None:
        """Raise ExpoflowError, and remove the runtime folder, if the head has ended."""
        if not self.alive():
            shutil.rmtree(self.folder, ignore_errors=True)
            raise ExpoflowError(
                f"snakemake (process {self.pid}) has ended, so its jobs end too; run snakemake again"
            )

    def alive(self) -> bool:
        """Return whether the process has not ended."""
        if (descriptor := self.watch()) is None:
            return False
        os.close(descriptor)
        return True


def announce(cores: int | None, idle: float = 60, asked: Mapping[str, int] | None = None) -> None:
    """Make this process the head of the jobs that it will start; without `cores`, of none.

    The main Snakemake process calls it once. `cores` is the number of jobs that can run at a time;
    `asked` is the number of GPUs for the models in some folders. Raises ExpoflowError if there are
    too few GPUs.
    """
    # Snakemake 9.27 handles SIGTERM by waiting for a lock that the interrupted thread itself may
    # hold.
    if callable(handler := signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, lambda *signum: threading.Thread(target=handler, args=signum).start())
    os.environ.pop("EXPOFLOW_HEAD", None)
    if cores is None or not can_host():
        return
    devices = gpus()
    require_known(devices)
    widest = max((asked or {}).values(), default=1)
    if 0 < len(devices) < widest:
        raise ExpoflowError(
            f"a model of this config asks for {widest} GPUs, but there are {len(devices)} here; correct its resources"
        )
    head = Head.here(tuple(devices) or (None,) * cores, idle).model_copy(
        update={
            "memory": gpu_memory.smallest(devices),
            "asked": tuple((os.path.abspath(folder), number) for folder, number in (asked or {}).items()),
        }
    )
    for folder in head.folder.parent.glob(f"expoflow-{os.getuid()}-*"):  # left by killed heads and hosts
        if found := re.fullmatch(r"expoflow-\d+-(\d+)-(\d+)", folder.name):
            pid, start = map(int, found.groups())
            if not head.model_copy(update={"pid": pid, "start": start}).alive():
                shutil.rmtree(folder, ignore_errors=True)
    os.environ["EXPOFLOW_HEAD"] = head.model_dump_json()
    atexit.register(lambda: head.is_here() and shutil.rmtree(head.folder, ignore_errors=True))
