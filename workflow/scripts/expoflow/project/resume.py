"""Jobs that outlive their head, the Snakemake process that started them; and how its run goes on without them.

A head that is killed cannot end its jobs, on this machine or in SLURM. A second head would start them once more,
beside the first ones. So every head leaves a note of its run, and marks what it starts here by EXPOFLOW_RUN.
"""

import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import Field

from expoflow.errors import ExpoflowError
from expoflow.files.records import Record, read_json, write_json
from expoflow.system.processes import ended, running, started

NOTE = Path(".snakemake", "expoflow-run.json")
MARK = "EXPOFLOW_RUN"
COMMANDS = ("sbatch", "squeue", "scancel")
WITHOUT_NOTE = "how it was started is not known any more: end them (kill), then start it as before"
# The SLURM executor names a job by its run, a UUID that may have a prefix.
RUN_ID = re.compile(r"([\w-]+_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ENDING = (
    10  # seconds in which an engine host, or a job's last process, is gone that a run leaves while it ends
)
PATIENCE = 600  # seconds in which what was cancelled or killed must have ended


class Run(Record):
    """What a head says of itself: the folder that it works in, and with which command, given where.

    `start` is the process' start time, which tells it from a later one with its pid; None without /proc.
    `cluster`: jobs were submitted to SLURM.
    """

    folder: str
    host: str
    pid: Annotated[int, Field(gt=0, le=1 << 22)]
    start: int | None
    cluster: bool
    command: list[str]
    cwd: str

    def alive(self) -> bool:
        """Whether the head still runs, where that is this machine."""
        try:
            os.kill(self.pid, 0)
            return self.start is None or (started(self.pid) == self.start and not ended(self.pid))
        except (ProcessLookupError, PermissionError):  # none, or another user's
            return False


class Orphans(Record):
    """The jobs of a folder that have not ended: ids of processes, and of SLURM jobs with their state."""

    processes: list[int]
    jobs: dict[str, str]

    def __str__(self) -> str:
        parts = [
            f"{kind} {', '.join(map(str, ids))}"
            for kind, ids in (("SLURM jobs", self.jobs), ("processes", self.processes))
            if ids
        ]
        return " and ".join(parts)


def begin(command: Sequence[str], cwd: str, cluster: bool) -> None:
    """Make this process, whose working directory is the run's folder, the head of a run.

    Raises ExpoflowError where jobs of a head that was killed are still at work in the folder, and with `cluster`
    where SLURM's commands are not here: the head would wait forever for the end of its jobs.
    """
    folder = os.getcwd()
    if cluster and (missing := [command for command in COMMANDS if not shutil.which(command)]):
        raise ExpoflowError(
            f"{', '.join(missing)}: no such command here; start the run on a login node of the cluster, with SLURM on PATH"
        )
    last = last_run(Path())
    if orphans := _lasting(folder, cluster=last is not None and last.cluster):
        remedy = f"run: expoflow resume {shlex.quote(folder)}" if last else WITHOUT_NOTE
        raise ExpoflowError(f"{orphans} of a run that was killed are still at work; {remedy}")
    pid = os.getpid()
    start = started(pid) if Path("/proc/self/stat").exists() else None
    host = socket.gethostname()
    run = Run(folder=folder, host=host, pid=pid, start=start, cluster=cluster, command=[*command], cwd=cwd)
    write_json(NOTE, run)
    os.environ[MARK] = folder


def last_run(folder: Path) -> Run | None:
    """The last run in `folder`; None where there was none, or only one of which this is a copy."""
    if not (folder / NOTE).exists():
        return None
    run = read_json(folder / NOTE, Run)
    return run if run.folder == str(folder.resolve()) else None


def find(folder: str, cluster: bool) -> Orphans | None:
    """The jobs of a run in `folder`, with `cluster` those in SLURM too, that have not ended; None where there are none."""
    found = Orphans(processes=_processes(folder), jobs=_cluster_jobs(folder) if cluster else {})
    return found if found.processes or found.jobs else None


def _lasting(folder: str, cluster: bool) -> Orphans | None:
    """What `find` finds, and still finds after the time in which what is ending has ended."""
    deadline = time.monotonic() + ENDING
    while (orphans := find(folder, cluster)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return orphans


def _processes(folder: str) -> list[int]:
    mark = os.fsencode(f"{MARK}={folder}\0")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or just gone
            if mark in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
    return sorted(pid for pid in found if not ended(pid))


def _cluster_jobs(folder: str) -> dict[str, str]:
    """The state of every SLURM job of this user that the executor has submitted for `folder`."""
    if not shutil.which("squeue"):
        raise ExpoflowError(f"{folder}: was run by SLURM, but no squeue is here; go to a node that has it")
    asked = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%T|%j|%Z"]
    listed = subprocess.run(asked, capture_output=True, text=True)
    if listed.returncode:
        raise ExpoflowError(f"squeue failed, try again when SLURM answers: {listed.stderr.strip()}")
    rows = [line.split("|", 3) for line in listed.stdout.splitlines()]
    return {
        number: state for number, state, name, where in rows if where == folder and RUN_ID.fullmatch(name)
    }


def lock_words(folder: Path) -> str:
    """What Snakemake's lock in `folder` means, with what to do: a run is at work there, or one was killed."""
    run, place = last_run(folder), folder.resolve()
    here = run is not None and run.host == socket.gethostname()
    if here and run.alive():
        head = run.pid
    else:  # one that has not left its note yet; not the orphans of a head that was killed
        orphans = _processes(str(place))
        head = next(
            (pid for pid, where in running("snakemake") if where == place and pid not in orphans), None
        )
    if head is not None:
        return f"a run is at work in this folder (process {head}); wait for its end, or stop it"
    if run is None:
        return (
            "this folder is locked, and no process of this machine is at work in it; if its run was killed, "
            + "run snakemake --unlock, then start it as before"
        )
    command = f"expoflow resume {shlex.quote(str(place))}"
    if here:
        return f"the last run in this folder (process {run.pid}) was killed; go on with: {command}"
    return (
        f"a run in this folder is at work on {run.host} (process {run.pid}), or was killed there; if it has ended, go on "
        + (f"with: {command} --dead" if run.cluster else f"on {run.host} with: {command}")
    )


def resume(folder: Path, dead: bool, say: Callable[[str], None]) -> NoReturn:
    """End the orphans of the folder's last run; then run and show its next one.

    `dead` vouches for the end of a head on another machine.
    """
    from expoflow.project import show

    run = last_run(folder)
    if run is None:
        raise ExpoflowError(f"{folder}: nothing was run here; name the folder that has results/")
    with open(folder / NOTE.with_suffix(".lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExpoflowError(f"{folder}: is being resumed, or was and runs") from None
        _require_end(run, dead)
        if not Path(run.cwd).is_dir():
            raise ExpoflowError(
                f"{run.cwd}: the folder in which the run was started is gone; make it again, with what the command needs"
            )
        _end(run, say)
        os.chdir(run.cwd)
        command = [sys.executable, "-m", "snakemake", *run.command]
        unlocked = subprocess.run([*command, "--unlock"], capture_output=True, text=True)
        if unlocked.returncode:
            raise ExpoflowError(f"{folder}: cannot be unlocked:\n{unlocked.stderr.strip()}")
        say(f"in {run.cwd}: snakemake {shlex.join(run.command)}")
        # The lock is held as long as the head lives, not by its jobs.
        sys.exit(show.run([*command, "--rerun-incomplete"], Path(run.folder), [lock.fileno()]))


def _require_end(run: Run, dead: bool) -> None:
    """The head must have ended."""
    here = run.host == socket.gethostname()
    locked = any(Path(run.folder, ".snakemake", "locks").glob("*.lock"))
    if here and run.alive():
        raise ExpoflowError(
            f"{run.folder}: its Snakemake runs, process {run.pid}; there is nothing to resume"
        )
    if not here and not run.cluster:
        raise ExpoflowError(f"{run.folder}: was run on {run.host}; resume it there, where its jobs are")
    if not here and locked and not dead:
        raise ExpoflowError(
            f"{run.folder}: its Snakemake runs or was killed on {run.host}, process {run.pid}; where you know that"
            " it has ended, add --dead"
        )


def _end(run: Run, say: Callable[[str], None]) -> None:
    """Cancel and kill the run's orphans, and wait for their end.

    Snakemake takes for incomplete, and makes again, also what they would still finish.
    """
    deadline = time.monotonic() + PATIENCE
    told = ""
    while orphans := find(run.folder, run.cluster):
        if told != str(orphans):
            say(f"ending {orphans}")
            told = str(orphans)
        if orphans.jobs:  # what SLURM has started is SLURM's to end, also where a node is this machine
            subprocess.run(["scancel", *orphans.jobs], capture_output=True)
        else:
            for pid in orphans.processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ExpoflowError(
                f"{orphans} have not ended within {PATIENCE} seconds; end them, and try again"
            )
        time.sleep(1 if orphans.jobs else 0.1)
