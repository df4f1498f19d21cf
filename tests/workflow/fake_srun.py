"""srun on a node that is this machine: a step with the first GPUs of its SLURM job. What it has started ends with it."""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

CHILD_SUBREAPER = 36


def children() -> list[int]:
    """The processes that this one has started, or has taken over."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((process / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(process.name))
    return found


def main(arguments: list[str]) -> int:
    options = {}
    while arguments[0].startswith("-"):
        name, _, value = arguments.pop(0).partition("=")
        options[name] = value
    given = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(given[: int(options.get("--gpus", 0))])}
    status = subprocess.run(arguments, env=os.environ | visible).returncode
    while left := children():
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return status


sys.exit(main(sys.argv[1:]))
