"""What a user reads in Snakemake's messages: expoflow's own words where they are needed, and no code."""

import logging
import re
import sys
from pathlib import Path

from expoflow import errors
from expoflow.errors import ExpoflowError
from expoflow.project import resume
from expoflow.system.last_words import FULL

LOGGER = "snakemake.logging"
FRAMES = re.compile(r'(\n  File "[^"\n]*", line \d+, in [^\n]*)+\s*$')
# What an input function raises if a file of the user's is not as it must be.
OWN = re.compile(
    rf"\n  ({'|'.join(name for name, each in vars(errors).items() if isinstance(each, type))}): "
)
FAULT = "this is a fault of expoflow: report it, with these lines"
ENDED = ("KeyboardInterrupt", "SystemExit")


class Words(logging.Filter):
    """Changes what Snakemake says of exceptions; `failed` are the logs of the jobs that failed.

    Of jobs that share a SLURM job these are those that end in an error, else SLURM's own.

    - Before its words on a lock stands what it is that locks the folder, and what to do.
    - An error that names its remedy ends with that, not with the lines of code that raised it.
    - After any other exception stands what to do with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[Path] = []
        self._grouped: set[Path] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = getattr(record, "exception", None)
        if kind is not None:
            record.msg = explained(str(record.msg), kind)
        match getattr(getattr(record, "event", None), "name", ""):
            case "GROUP_ERROR":  # an error of each of its jobs follows, also of those that did not fail
                logs = [Path(log) for job in record.job_error_info for log in job["log"]]
                wrong = [log for log in logs if _reason(log).startswith("error: ")]
                self.failed += wrong or map(Path, record.aux_logs)
                self._grouped.update(logs)
            case "JOB_ERROR":
                logs = [Path(log) for log in getattr(record, "log", None) or ()]
                self.failed += [log for log in logs if log not in self._grouped]
                self._grouped.difference_update(logs)
        return True

    def last(self) -> str:
        """Of every job that failed its log and the last line there: the reason."""
        return "\n".join(f"{log}: {_reason(log)}" for log in dict.fromkeys(self.failed))


def listen() -> Words:
    """Change what Snakemake says from now on, in this process."""
    logger = logging.getLogger(LOGGER)
    for old in [each for each in logger.filters if isinstance(each, Words)]:  # of another workflow
        logger.removeFilter(old)
    words = Words()
    logger.addFilter(words)
    return words


def explained(text: str, kind: str) -> str:
    """Snakemake's `text` on an exception of the class `kind`, with what a user needs to know."""
    if kind == "LockException":
        try:
            return f"{resume.lock_words(Path())}\n{text}"
        except ExpoflowError as error:  # the note of the run is broken
            return f"{error}\n{text}"
    if kind == "WorkflowError":
        return FRAMES.sub("", text)
    if kind == "InputFunctionException" and OWN.search(text):
        return text.partition("\nTraceback:\n")[0]
    if FULL in text:
        return f"{text.rstrip()}\n{FULL}: make room on this disk, then try again"
    known = hasattr(sys.modules.get("snakemake.exceptions"), kind) and kind != "InputFunctionException"
    return text if known or kind in ENDED else f"{text.rstrip()}\n{FAULT}"


def _reason(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    said = [line for line in lines if line.strip()]
    return said[-1] if said else "is empty: the job was killed, perhaps for want of memory"
