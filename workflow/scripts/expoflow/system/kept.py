"""What jobs have finished that share a SLURM job, kept until their run has ended.

Snakemake knows such jobs as a group alone: if the SLURM job is killed, it removes what every one of them has made, and runs all
of them again. One that had finished then has its output from here, where nothing that it depends on has changed.
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
RULES = ("generate", "score", "likelihood")  # each has one output, and nothing else remains of its job


class FinishedError(Exception):
    """The job had finished; its output is where it belongs."""


@contextmanager
def finished(job: Any) -> Iterator[None]:
    """Keep the output of a job, Snakemake's `snakemake` in its script, when the block has made it; raises FinishedError if it is kept.

    So is its log, which is told again.
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
    """Remove what is kept: the run has ended well, or the user wants jobs to run that have finished."""
    shutil.rmtree(FOLDER, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as file, replacing(target, "wb") as copy:
        shutil.copyfileobj(file, copy)
