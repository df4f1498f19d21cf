"""Snakemake's start without its imports, which take longer than a dry run: one process has made them, each start is a fork.

Nothing of expoflow is imported before the fork: a start reads the library of its own workflow. What looks for processes by the
environment or the words that they were started with finds the first process, so that a run with jobs is no such start.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile

# What Snakemake imports at once, and what it imports on the way to its first job.
IMPORTED = ("snakemake.cli", "snakemake.report.html_reporter", "smart_open")


@cache
def _first() -> subprocess.Popen:
    """The process that forks, one for this one; it ends when this one ends, which closes its input."""
    command = [sys.executable, __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def snakemake(
    arguments: list[str], cwd: Path, environment: dict[str, str], timeout: int
) -> subprocess.CompletedProcess:
    """What `python -m snakemake ARGUMENTS` ends with, and all that it prints; it is killed after `timeout` seconds."""
    first = _first()
    with NamedTemporaryFile(mode="r+") as output:
        start = {"arguments": arguments, "cwd": str(cwd), "environment": environment}
        first.stdin.write(json.dumps(start | {"output": output.name, "timeout": timeout}) + "\n")
        first.stdin.flush()
        status = int(first.stdout.readline())
        done = subprocess.CompletedProcess(arguments, status, output.read())
    if status == -signal.SIGALRM:
        raise subprocess.TimeoutExpired(arguments, timeout, done.stdout)
    return done


def main() -> None:
    """Fork for every line of the input, and write how each fork ended; a fork goes on as `python -m snakemake` does."""
    for module in IMPORTED:
        import_module(module)
    while line := sys.stdin.readline():
        if not (pid := os.fork()):
            return become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def become(start: dict) -> None:
    """Be the process that was asked for."""
    signal.alarm(start["timeout"])
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(start["output"], os.O_WRONLY)
    for descriptor, file in enumerate((nothing, output, output)):
        os.dup2(file, descriptor)
    os.chdir(start["cwd"])
    os.environ.clear()
    os.environ.update(start["environment"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [start["cwd"], *filter(None, paths)]
    sys.argv[1:] = start["arguments"]
    runpy.run_module("snakemake", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
