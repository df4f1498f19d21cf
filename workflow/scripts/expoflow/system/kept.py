"""Outputs of finished jobs that share a SLURM job, kept until their run has ended.

Snakemake treats such jobs as one group. If the SLURM job is killed, it removes the outputs of all
of them and runs them all again. A job that had finished then gets its output from here, provided
that nothing it depends on has changed.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from expoflow.files.atomic import replacing
from expoflow.files.hashing import json_digest, sha256

FOLDER = Path(".snakemake", "expoflow-kept")
SHARED = "EXPOFLOW_SHARED"  # in the environment of jobs that share a SLURM job
RULES = ("generate", "score", "likelihood")  # rules whose jobs leave one output and nothing else


class FinishedError(Exception):
    """The job had finished, and its output is in place."""


@contextmanager
def finished(job: Any) -> Iterator[None]:
    """Keep a job's output and log once the block has made them.

    `job` is Snakemake's `snakemake` in the job's script. If they are kept already, the log is
    printed again, the output is restored, and FinishedError is raised.
    """
    if SHARED not in os.environ or job.rule not in RULES:
        yield
        return
    kept, output, log = _place(job), Path(job.output[0]), Path(job.log[0])
    if (kept / "output").exists():
        print((kept / "log").read_text(encoding="utf-8"), end="")
        _copy(kept / "output", output)
        raise FinishedError
    yield
    kept.mkdir(parents=True, exist_ok=True)
    _copy(log, kept / "log")
    _copy(output, kept / "output")


def _place(job: Any) -> Path:
    key = {
        "output": list(job.output),
        "params": {name: str(value) for name, value in job.params.items()},
        "inputs": [[path, sha256(Path(path))] for path in job.input],
        "packages": sorted(f"{each.name} {each.version}" for each in metadata.distributions()),
    }
    return FOLDER / json_digest(key)


def forget() -> None:
    """Remove what is kept: the run has ended well, or the user wants finished jobs to run again."""
    shutil.rmtree(FOLDER, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as file, replacing(target, "wb") as copy:
        shutil.copyfileobj(file, copy)
