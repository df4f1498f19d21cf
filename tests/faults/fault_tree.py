"""A tree in which a fault is brought about: what runs there, and what is left of it afterwards."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from workflow.tree import Tree

if TYPE_CHECKING:
    from server import Hub
    from stages import Stage

TABLES = ("alphas.csv", "rewards.csv", "benchmarks.csv", "summary.csv", "pairs/tiny/alphas.csv")
TEMPORARY = ("*.tmp", "*.part", "*.partial", "*.incomplete", "*.training")
QUICK = ("--slurm-init-seconds-before-status-checks", "5")
PATIENCE = 60  # seconds in which what has been told to end must have ended


class TooLateError(Exception):
    """The work was done before the fault hit."""


class FaultTree(Tree):
    """A tree with a store, downloads (`home`) and a TMPDIR (`places`) of its own, which tells its processes."""

    def __init__(self, folder: Path, hub: "Hub"):
        super().__init__(folder / "tree", folder / "store")
        self.home, self.places, self.output = folder / "hf", folder / "tmp", folder / "output"
        self.hub, self._closing = hub, ExitStack()

    def copy(self, folder: Path, stage: "Stage") -> "FaultTree":
        """A copy as it was before a stage, time stamps and Snakemake's records included."""
        copy = FaultTree(folder, self.hub)
        shutil.copytree(self.folder, copy.folder, symlinks=True)
        for made in (copy.store, copy.home, copy.places):
            made.mkdir()
        if stage.stored:
            shutil.copytree(self.store, copy.store, dirs_exist_ok=True)
        if stage.here:
            copy.home = self.home
        for output in (copy.folder / name for name in dict.fromkeys(stage.removed)):
            shutil.rmtree(output) if output.is_dir() else output.unlink()
        return copy

    def close(self) -> None:
        """End what a failed test has left, and take small disks away."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._closing.close()

    def start(self, *arguments: str, slurm: bool = False) -> subprocess.Popen:
        """Begin a run as one types it in the folder itself, but for a test's patience with SLURM."""
        command = [
            "snakemake",
            "--snakefile",
            str(self.workflow / "Snakefile"),
            "--configfile",
            "config.yaml",
        ]
        command += ["--profile", str(self.workflow / "slurm"), *QUICK] if slurm else ["--cores", "2"]
        return self._popen([*command, *arguments], self.folder)

    def resume(self) -> str:
        """`expoflow resume` to the end; what it printed, and what Snakemake did."""
        process = self._popen(["expoflow.cli", "resume", str(self.folder)], Path("/"))
        assert process.wait(timeout=1200) == 0, self.output.read_text()
        return self.output.read_text() + (self.folder / "results/logs/snakemake.log").read_text()

    def _popen(self, module: list[str], cwd: Path) -> subprocess.Popen:
        """Python running a module with its arguments.

        It has a process group of its own, as a shell gives it: Ctrl-C goes to all of it. Tests that run in the
        background may have been told to ignore that, and what they start would too.
        """
        mine = {
            "EXPOFLOW_STORE": self.store,
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": self.home,
            "TMPDIR": self.places,
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        with open(self.output, "w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=cwd,
                env=others | {name: str(value) for name, value in mine.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_for(self, condition: Callable[[], object], head: subprocess.Popen) -> None:
        """Wait until a run is at the place where it is to be hit; TooLateError if it was quicker."""
        deadline = time.monotonic() + 300
        while not condition():
            if head.poll() is not None:
                raise TooLateError(self.output.read_text())
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.005)

    def processes(self) -> list[int]:
        """What runs of this tree have started and what still runs, the heads among them."""
        return [pid for pid, environ in _each("environ") if f"TMPDIR={self.places}\0".encode() in environ]

    def hosts(self) -> list[int]:
        """The engine hosts of the tree."""
        mine = self.processes()
        return [
            pid
            for pid, line in _each("cmdline")
            if pid in mine and b"from expoflow.hosts import host" in line
        ]

    def spoilt(self) -> list[str]:
        """What a run that is over must not leave: processes, held locks, temporary files."""
        deadline = time.monotonic() + PATIENCE  # an engine host takes a moment to see that its head has ended
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        found = [f"process {pid}" for pid in left]
        found += [str(path) for path in self.places.glob("expoflow-*")]
        for records in ("locks", "incomplete"):
            found += [str(path) for path in (self.folder / ".snakemake" / records).glob("*")]
        for root in (self.folder / "results", self.store, self.home):
            found += [str(path) for pattern in TEMPORARY for path in root.rglob(pattern)]
            found += [f"held: {path}" for path in root.rglob("*.lock") if _held(path)]
        return found

    def small_disk(self, folder: Path, room: int) -> Callable[[], None]:
        """Put `folder` on a disk that has only `room` bytes left until what is returned is called."""
        if os.geteuid() != 0:
            pytest.skip("a small disk is a tmpfs, which only root can mount")
        aside = folder.rename(folder.with_name(f"{folder.name}.aside"))
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True).returncode:
            pytest.skip("a small disk is a tmpfs, which cannot be mounted here")
        self._closing.callback(lambda: subprocess.run(["umount", "--lazy", str(folder)], check=True))
        shutil.copytree(aside, folder, dirs_exist_ok=True, symlinks=True)

        def resize(size: int) -> None:
            subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

        state = os.statvfs(folder)
        resize((state.f_blocks - state.f_bfree) * state.f_frsize + room)
        return lambda: resize(1 << 30)


def counted(output: str) -> dict[str, int]:
    """Number of jobs by rule that a run has said it would do, `all` left out."""
    table = output.partition("Job stats:")[2].partition("\n\n")[0]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    return {rule: count for rule, count in jobs.items() if rule not in ("all", "total")}


def _each(file: str) -> Iterator[tuple[int, bytes]]:
    """Every process that has not ended, and its environ or cmdline."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (text := (process / file).read_bytes()) and int(process.name) != os.getpid():
                yield int(process.name), text


def _held(lock: Path) -> bool:
    with open(lock, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
