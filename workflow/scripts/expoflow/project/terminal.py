"""Snakemake's messages as a user reads them: without code, and with expoflow's words if needed."""

import atexit
import io
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from expoflow import errors
from expoflow.errors import ExpoflowError, shown
from expoflow.paths import RESULTS
from expoflow.project import resume
from expoflow.project.events import Recorder, planned
from expoflow.system.last_words import FULL, environment

LOGGER = "snakemake.logging"
FRAMES = re.compile(r'(\n  File "[^"\n]*", line \d+, in [^\n]*)+\s*$')
# An input function raises one of these if a user's file is invalid.
OWN = re.compile(
    rf"\n  ({'|'.join(name for name, each in vars(errors).items() if isinstance(each, type))}): "
)
FAULT = "this is a bug in expoflow: report it, with these lines"
ENDED = ("KeyboardInterrupt", "SystemExit")
# An exception of the system, as the last line of a traceback.
SYSTEM = re.compile(r"^\w*Error: \[Errno (\d+)\] ([^:\n]*)(?:: '([^'\n]*)')?[^\n]*\Z", re.MULTILINE)
# Snakemake says this when it is interrupted.
REQUEST = "Terminating processes on user request"
INTERRUPTED = (
    "expoflow: interrupted: the jobs at work are being ended; what is finished stays",
    "expoflow: the same command goes on from there",
)
STOPPED = "expoflow: the run was ended early; what is finished stays, and the same command goes on from there"
# Snakemake's messages about failed jobs; `Words.last` gives the jobs and the reasons.
FAILED = re.compile(
    r"RuleException:\nCalledProcessError in file .*|Exiting because a job execution failed.*"
    r"|.*At least one job did not complete successfully\.",
    re.DOTALL,
)
SHOWN = "EXPOFLOW_SHOWN"  # set by `expoflow run` for the head whose run it shows


class Words(logging.Filter):
    """Changes Snakemake's messages about exceptions; `failed` are the logs of the jobs that failed.

    If jobs share a SLURM job, these are the logs that end with an error, or else SLURM's own log.

    - A message about a lock is replaced by what locks the folder, and what to do.
    - An error that names its remedy ends there; the lines of code that raised it are left out.
    - Any other exception is followed by what to do about it.
    - After Ctrl-C two lines are printed, and no messages about the jobs that end.
    """

    def __init__(self, screen: "Screen | None" = None) -> None:
        super().__init__()
        self.failed: list[Path] = []
        self.interrupted = False
        self._grouped: set[Path] = set()
        self._screen = screen
        self._events: Recorder | None = None

    def begin(self, dag: Any, cluster: bool) -> None:
        """Begin the run of the jobs of Snakemake's `dag`: its events are written from now on."""
        self._events = Recorder(RESULTS.events, planned(dag), cluster)
        if self._screen:
            self._screen.begin(RESULTS.snakemake_log)

    def interrupt(self) -> None:
        """Somebody has pressed Ctrl-C."""
        if not self.interrupted:
            self.interrupted = True
            # In one piece: by print a job's last words could come between a line and its end.
            sys.stderr.write("".join(f"{line}\n" for line in INTERRUPTED))
            sys.stderr.flush()
            if self._events:
                self._events.ending = "interrupted"
            if self._screen:
                self._screen.told = True

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith(REQUEST):
            self.interrupt()
        if self.interrupted:
            return False
        kind = getattr(record, "exception", None)
        if kind is not None:
            record.msg = explained(str(record.msg), kind)
        if self._events:
            self._events.hear(record)
        if self._screen:
            self._screen.hear(record)
        match getattr(getattr(record, "event", None), "name", ""):
            case "GROUP_ERROR":  # followed by an error for each of its jobs, even those that did not fail
                logs = [Path(log) for job in record.job_error_info for log in job["log"]]
                wrong = [log for log in logs if _reason(log).startswith("error: ")]
                self.failed += wrong or map(Path, record.aux_logs)
                self._grouped.update(logs)
            case "JOB_ERROR":
                logs = [Path(log) for log in getattr(record, "log", None) or ()]
                self.failed += [log for log in logs if log not in self._grouped]
                self._grouped.difference_update(logs)
        return True

    def last(self, place: Callable[[Path], object] = str) -> str:
        """Return the log of every failed job, as `place` formats it, and its last line, the reason.

        If no job failed, as after SIGTERM, return how to go on.
        """
        return "\n".join(f"{place(log)}: {_reason(log)}" for log in dict.fromkeys(self.failed)) or STOPPED


def listen() -> Words:
    """Change Snakemake's messages from now on, in this process."""
    logger = logging.getLogger(LOGGER)
    for old in [each for each in logger.filters if isinstance(each, Words)]:  # from another workflow
        logger.removeFilter(old)
    screen = Screen(logger, int(os.environ.pop(SHOWN))) if SHOWN in os.environ else None
    words = Words(screen)
    logger.addFilter(words)

    def unforeseen(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            words.interrupt()
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = unforeseen
    logging.raiseExceptions = (
        False  # a full disk is reported by what it ends, not by every line of Snakemake's log
    )
    return words


class Screen(io.TextIOBase):
    """Keeps Snakemake's own messages off the terminal, in a run that `expoflow run` shows.

    Before the run begins they are collected. If no run begins and no error is shown, they are
    printed at the end, since they are then what was asked for. Once the run begins they go to a
    log. Errors go to the terminal too; `Words.last` reports failed jobs. `terminal` is the
    terminal's descriptor. It becomes standard error, which has been a file until now.
    """

    def __init__(self, logger: logging.Logger, terminal: int):
        super().__init__()
        with open(2, closefd=False, encoding="utf-8", errors="replace") as early:
            early.seek(0)
            self._said = io.StringIO(early.read())
            self._said.seek(0, io.SEEK_END)
        os.ftruncate(2, 0)
        os.dup2(terminal, 2)
        os.close(terminal)
        self.told = False
        self._log: io.TextIOBase | None = None
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setStream(self)
        atexit.register(self._give_back)

    def begin(self, log: Path) -> None:
        """Begin the run: open the log."""
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = open(log, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 (open until the run ends)
        self.told = True
        self.write(self._said.getvalue())

    def write(self, text: str) -> int:
        """Take a message of Snakemake's; if the disk is full, only the log is lost."""
        with suppress(OSError):
            if not self.told or self._log:
                (self._log or self._said).write(text)
        return len(text)

    def hear(self, record: logging.LogRecord) -> None:
        """Show an error."""
        event = getattr(getattr(record, "event", None), "name", "")
        if record.levelno >= logging.ERROR and event not in ("JOB_ERROR", "GROUP_ERROR"):
            text = str(record.msg).rstrip()
            if not FAILED.fullmatch(text):
                self.told = True
                print(text, file=sys.stderr, flush=True)

    def _give_back(self) -> None:
        if not self.told:
            sys.stderr.write(self._said.getvalue())
            sys.stderr.flush()


def explained(text: str, kind: str) -> str:
    """Return Snakemake's `text` about an exception of class `kind`, rewritten for users."""
    if kind == "LockException":
        try:
            return f"expoflow: {resume.lock_words(Path())}"
        except ExpoflowError as error:  # the run's note is broken
            return f"expoflow: {error}"
    if kind == "BrokenPipeError":
        return "expoflow: the output is no longer read"
    if kind == "WorkflowError" and FULL not in text:
        return FRAMES.sub("", text)
    if kind == "InputFunctionException" and OWN.search(text):
        return text.partition("\nTraceback:\n")[0]
    if line := _of_the_system(text):
        return f"expoflow: {line}"
    if FULL in text:
        return f"{FRAMES.sub('', text.rstrip())}\n{FULL}: make room on this disk, then try again"
    known = hasattr(sys.modules.get("snakemake.exceptions"), kind) and kind != "InputFunctionException"
    return text if known or kind in ENDED else f"{text.rstrip()}\n{FAULT}"


def _of_the_system(text: str) -> str | None:
    """Return one line with the remedy if the machine is the reason, such as a full disk."""
    if not (found := SYSTEM.search(text.rstrip())):
        return None
    number, words, name = found.groups()
    return environment(OSError(int(number), words, name) if name else OSError(int(number), words))


def _reason(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    said = [line for line in lines if line.strip()]
    return shown(said[-1]) if said else "is empty: the job was killed, perhaps for lack of memory"
