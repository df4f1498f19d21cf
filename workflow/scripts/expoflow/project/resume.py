"""Resume a run whose head was killed. The head is the Snakemake process that starts the jobs.

A head that is killed cannot end its jobs, neither on this machine nor in SLURM. A second head would
start the same jobs again, beside the orphans. So every head writes a note about its run, and marks
the processes that it starts on this machine with the environment variable EXPOFLOW_RUN.
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
WITHOUT_NOTE = "the command that started it is not recorded: end them (kill), then start it as before"
# The SLURM executor names a job after its run: a UUID that may have a prefix.
RUN_ID = re.compile(r"([\w-]+_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ENDING = 10  # seconds that an engine host, or a job's last process, may take to end after its run
PATIENCE = 600  # seconds in which cancelled or killed jobs must have ended


class Run(Record):
    """A head's note about its run: the folder it works in, its command, and where that was given.

    `start` is the process' start time, which distinguishes it from a later process with the same
    pid. It is None without /proc. `cluster`: jobs were submitted to SLURM.
    """

    folder: str
    host: str
    pid: Annotated[int, Field(gt=0, le=1 << 22)]
    start: int | None
    cluster: bool
    command: list[str]
    cwd: str

    def alive(self) -> bool:
        """Return whether the head still runs; valid only on the head's machine."""
        try:
            os.kill(self.pid, 0)
            return self.start is None or (started(self.pid) == self.start and not ended(self.pid))
        except (ProcessLookupError, PermissionError):  # no such process, or another user's
            return False


class Orphans(Record):
    """The unfinished jobs of a folder: process ids, and SLURM job ids with their states."""

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
    """Make this process the head of a run; its working directory is the run's folder.

    Raises ExpoflowError if jobs of a killed head are still at work in the folder. With `cluster`,
    it is also raised if SLURM's commands are missing here: the head would wait forever for its
    jobs.
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
    """Return the last run in `folder`; None if there was none, or if the folder is a copy."""
    if not (folder / NOTE).exists():
        return None
    run = read_json(folder / NOTE, Run)
    return run if run.folder == str(folder.resolve()) else None


def find(folder: str, cluster: bool) -> Orphans | None:
    """Return the unfinished jobs of a run in `folder`; None if there are none.

    With `cluster`, jobs in SLURM are included.
    """
    found = Orphans(processes=_processes(folder), jobs=_cluster_jobs(folder) if cluster else {})
    return found if found.processes or found.jobs else None


def _lasting(folder: str, cluster: bool) -> Orphans | None:
    """Return what `find` still finds after `ENDING` seconds, in which ending jobs may end."""
    deadline = time.monotonic() + ENDING
    while (orphans := find(folder, cluster)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return orphans


def _processes(folder: str) -> list[int]:
    mark = os.fsencode(f"{MARK}={folder}\0")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's process, or one that has just ended
            if mark in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
    return sorted(pid for pid in found if not ended(pid))


def _cluster_jobs(folder: str) -> dict[str, str]:
    """Return the state of each SLURM job of this user that the executor submitted for `folder`."""
    if not shutil.which("squeue"):
        raise ExpoflowError(f"{folder}: SLURM ran it, but squeue is not here; go to a node that has it")
    asked = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%T|%j|%Z"]
    listed = subprocess.run(asked, capture_output=True, text=True)
    if listed.returncode:
        raise ExpoflowError(f"squeue failed, try again when SLURM answers: {listed.stderr.strip()}")
    rows = [line.split("|", 3) for line in listed.stdout.splitlines()]
    return {
        number: state for number, state, name, where in rows if where == folder and RUN_ID.fullmatch(name)
    }


def lock_words(folder: Path) -> str:
    """Return the reason for Snakemake's lock in `folder`, and what to do about it."""
    run, place = last_run(folder), folder.resolve()
    here = run is not None and run.host == socket.gethostname()
    if here and run.alive():
        head = run.pid
    else:  # a head that has not written its note yet, but not an orphan of a killed one
        orphans = _processes(str(place))
        head = next(
            (pid for pid, where in running("snakemake") if where == place and pid not in orphans), None
        )
    if head is not None:
        return f"a run is at work in this folder (process {head}); wait until it ends, or stop it"
    if run is None:
        return (
            "this folder is locked, and no process of this machine is at work in it; if its run was killed, "
            + "run snakemake --unlock, then start it as before"
        )
    command = f"expoflow resume {shlex.quote(str(place))}"
    if here:
        return f"the last run in this folder (process {run.pid}) was killed; continue with: {command}"
    return (
        f"a run in this folder is at work on {run.host} (process {run.pid}), or was killed there; if it has ended, continue "
        + (f"with: {command} --dead" if run.cluster else f"on {run.host} with: {command}")
    )


def resume(folder: Path, dead: bool, say: Callable[[str], None]) -> NoReturn:
    """End the orphans of the folder's last run; then start and show the next one.

    With `dead` the user confirms that a head on another machine has ended.
    """
    from expoflow.project import show

    run = last_run(folder)
    if run is None:
        raise ExpoflowError(f"{folder}: nothing was run here; name the folder with results/")
    with open(folder / NOTE.with_suffix(".lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExpoflowError(f"{folder}: is being resumed, or a resumed run is at work") from None
        _require_end(run, dead)
        if not Path(run.cwd).is_dir():
            raise ExpoflowError(
                f"{run.cwd}: the folder in which the run was started is gone; restore it, with the files that the command needs"
            )
        _end(run, say)
        os.chdir(run.cwd)
        command = [sys.executable, "-m", "snakemake", *run.command]
        unlocked = subprocess.run([*command, "--unlock"], capture_output=True, text=True)
        if unlocked.returncode:
            raise ExpoflowError(f"{folder}: cannot be unlocked:\n{unlocked.stderr.strip()}")
        say(f"in {run.cwd}: snakemake {shlex.join(run.command)}")
        # The head holds the lock as long as it lives; its jobs do not.
        sys.exit(show.run([*command, "--rerun-incomplete"], Path(run.folder), [lock.fileno()]))


def _require_end(run: Run, dead: bool) -> None:
    """Raise ExpoflowError unless the head has ended."""
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
            f"{run.folder}: its Snakemake runs or was killed on {run.host}, process {run.pid}; if you know that"
            " it has ended, add --dead"
        )


def _end(run: Run, say: Callable[[str], None]) -> None:
    """Cancel or kill the run's orphans, and wait until they have ended.

    Snakemake will treat their outputs as incomplete and make them again, even those that the
    orphans would still finish.
    """
    deadline = time.monotonic() + PATIENCE
    told = ""
    while orphans := find(run.folder, run.cluster):
        if told != str(orphans):
            say(f"ending {orphans}")
            told = str(orphans)
        if orphans.jobs:  # SLURM must end what SLURM started, even if a node is this machine
            subprocess.run(["scancel", *orphans.jobs], capture_output=True)
        else:
            for pid in orphans.processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ExpoflowError(f"{orphans} have not ended within {PATIENCE} seconds; end them and try again")
        time.sleep(1 if orphans.jobs else 0.1)
