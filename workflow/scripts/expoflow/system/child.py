"""Child processes that do not outlive the process that started them, even if it is killed."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def run(command: Sequence[str], **environment: str) -> int:
    """Run a command and return its status; the command is killed if this process ends first."""
    parent = os.getpid()
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        preexec_fn=lambda: end_with(parent),
    )
    return process.wait()


def end_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which started it, ends (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
