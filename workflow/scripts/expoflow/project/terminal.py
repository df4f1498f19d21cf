"""What a user reads in Snakemake's messages: expoflow's own words where they are needed, and no code."""

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
# What an input function raises if a file of the user's is not as it must be.
OWN = re.compile(
    rf"\n  ({'|'.join(name for name, each in vars(errors).items() if isinstance(each, type))}): "
)
FAULT = "this is a fault of expoflow: report it, with these lines"
ENDED = ("KeyboardInterrupt", "SystemExit")
# An exception of the system, as the last line of a traceback.
SYSTEM = re.compile(r"^\w*Error: \[Errno (\d+)\] ([^:\n]*)(?:: '([^'\n]*)')?[^\n]*\Z", re.MULTILINE)
# By it Snakemake says that somebody has interrupted it.
REQUEST = "Terminating processes on user request"
INTERRUPTED = (
    "expoflow: interrupted: the jobs at work are being ended; what is finished stays",
    "expoflow: the same command goes on from there",
)
STOPPED = "expoflow: the run was ended before its end; what is finished stays, and the same command goes on from there"
# Snakemake's words on jobs that fail; `Words.last` says which, and why.
FAILED = re.compile(
    r"RuleException:\nCalledProcessError in file .*|Exiting because a job execution failed.*"
    r"|.*At least one job did not complete successfully\.",
    re.DOTALL,
)
SHOWN = "EXPOFLOW_SHOWN"  # by it a head knows that `expoflow run` shows its run


class Words(logging.Filter):
    """Changes what Snakemake says of exceptions; `failed` are the logs of the jobs that failed.

    Of jobs that share a SLURM job these are those that end in an error, else SLURM's own.

    - Instead of its words on a lock stands what it is that locks the folder, and what to do.
    - An error that names its remedy ends with that, not with the lines of code that raised it.
    - After any other exception stands what to do with it.
    - After Ctrl-C two lines are said, and nothing of the jobs that end by it.
    """

    def __init__(self, screen: "Screen | None" = None) -> None:
        super().__init__()
        self.failed: list[Path] = []
        self.interrupted = False
        self._grouped: set[Path] = set()
        self._screen = screen
        self._events: Recorder | None = None

    def begin(self, dag: Any, cluster: bool) -> None:
        """The run begins, with the jobs of Snakemake's `dag`: its events are written from now on."""
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

    def last(self, place: Callable[[Path], object] = str) -> str:
        """Of every job that failed its log, as `place` has it, and the last line there: the reason.

        If none has, as after SIGTERM, how to go on.
        """
        return "\n".join(f"{place(log)}: {_reason(log)}" for log in dict.fromkeys(self.failed)) or STOPPED


def listen() -> Words:
    """Change what Snakemake says from now on, in this process."""
    logger = logging.getLogger(LOGGER)
    for old in [each for each in logger.filters if isinstance(each, Words)]:  # of another workflow
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
        False  # a full disk is told by what it ends, not by every line of Snakemake's log
    )
    return words


class Screen(io.TextIOBase):
    """Keeps what Snakemake says of its own from the terminal, in a run that `expoflow run` shows.

    Until the run begins this is kept, and shown at the end if none began and no error was shown: then it is what was asked
    for. From the beginning on it goes to a log. Errors go to the terminal too; of a failed job `Words.last` tells.
    `terminal` is the descriptor that stands for it, and becomes standard error, which has been a file until now.
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
        """The run begins."""
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = open(log, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 (open until the run ends)
        self.told = True
        self.write(self._said.getvalue())

    def write(self, text: str) -> int:
        """Take what Snakemake says; a disk that is full costs the log, not the run."""
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
    """Snakemake's `text` on an exception of the class `kind`, with what a user needs to know."""
    if kind == "LockException":
        try:
            return f"expoflow: {resume.lock_words(Path())}"
        except ExpoflowError as error:  # the note of the run is broken
            return f"expoflow: {error}"
    if kind == "BrokenPipeError":
        return "expoflow: nobody reads any more what is said"
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
    """One line with the remedy if the machine is the reason: a full disk, a folder that cannot be written to."""
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
    return shown(said[-1]) if said else "is empty: the job was killed, perhaps for want of memory"
