"""The last words about an unexpected exception: one line with the remedy, after any traceback."""

import errno
import traceback
from pathlib import Path

import expoflow
from expoflow.errors import shown

PACKAGE = Path(expoflow.__file__).parent
# What the machine refuses, and what the user can do about it.
REMEDIES = {
    errno.ENOSPC: "make room on this disk",
    errno.EDQUOT: "make room: your quota is used up",
    errno.EACCES: "get access to it",
    errno.EPERM: "get access to it",
    errno.EROFS: "name a place that can be written to",
    errno.EIO: "check this disk or network file system",
    errno.ESTALE: "mount this file system again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the machine has too many open files",
    errno.ENAMETOOLONG: "give shorter names",
}
FULL = "No space left on device"  # in libraries that raise exceptions of their own
MEMORY = ("CUDA out of memory", "can't allocate memory", "Cannot allocate memory")


def environment(error: BaseException) -> str | None:
    """Return one line with the remedy if the machine is the reason, or else None.

    Reasons are a full disk, missing permission, and too little memory.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno in REMEDIES:
        return shown(f"{_place(error)}{error.strerror}; {REMEDIES[error.errno]}, then try again")
    if FULL in text:
        return shown(f"{_last_line(text)}; {REMEDIES[errno.ENOSPC]}, then try again")
    memory = isinstance(error, MemoryError) or any(
        each.__name__ == "OutOfMemoryError" for each in type(error).__mro__
    )
    if memory or any(words in text for words in MEMORY):
        said = f" ({text.strip().splitlines()[0]})" if text.strip() else ""
        return shown(
            f"out of memory{said}; run fewer jobs at a time (--cores), or take a machine with more memory, or more GPUs for"
            " the model (resources: {gpus: N})"
        )
    return None


def last_words(error: BaseException, report: str) -> tuple[str, str]:
    """Return the traceback of `error`, "" if the machine is the reason, and the line after it.

    `report` tells the user where to find the traceback for a bug report.
    """
    if line := environment(error):
        return "", line
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, OSError) and error.filename is not None:
        line = (
            f"{_place(error)}{error.strerror}; if it was removed or replaced while expoflow was working, try again, otherwise report"
            f" it as a bug in expoflow, with {report}"
        )
    else:
        said = _last_line(str(error))
        line = (
            f"{type(error).__name__}{f': {said}' if said else ''}{_source(error)}; unless a file in results/ was changed by"
            f" hand, this is a bug in expoflow: report it, with {report}"
        )
    return trace, shown(line)


def _place(error: OSError) -> str:
    return f"{error.filename}: " if error.filename is not None else ""


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()[:500]


def _source(error: BaseException) -> str:
    """Return the place in expoflow where it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if Path(each.filename).is_relative_to(PACKAGE) and each.name != "job_log"]
    return f" (in {Path(own[-1].filename).relative_to(PACKAGE.parent)}:{own[-1].lineno})" if own else ""
