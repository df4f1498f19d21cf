"""Log files of jobs: everything that a job prints goes there; also the environment of jobs."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from expoflow.errors import ExpoflowError
from expoflow.system import collector, kept, progress
from expoflow.system.last_words import last_words

QUIET = "EXPOFLOW_QUIET"  # set if a job's lines are shown in another way


def settle(threads: int, offline: bool = True) -> None:
    """Set the environment of a process that runs models.

    It sets the number of threads, makes libraries quiet, and keeps them from asking the hub. Call
    it before torch or numpy is imported.
    """
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MPLBACKEND": "agg",
    }
    if offline:  # otherwise a missing local path would become a request to the hub
        os.environ["HF_HUB_OFFLINE"] = "1"


@contextmanager
def job_log(path: str, threads: int = 1, offline: bool = True) -> Iterator[Callable[[str], None]]:
    """Send stdout and stderr, also of subprocesses, to `path`, and set the job's environment.

    Yields `say` for the job's one line of result. It goes to the log, and to the terminal unless
    `QUIET` is set. Any exception ends the process with status 1 and the log with a line "error:
    ...". The line has the message of an ExpoflowError, or for others what `last_words` returns,
    after its traceback. If the log cannot be written to, the terminal gets it. Call this before
    torch or numpy is imported, since it sets their thread count. A job whose output is `kept` ends
    here with status 0. `progress` reports how far the job is beside the log.
    """
    collector.relax()
    settle(threads, offline)
    with (
        open(path, "w", encoding="utf-8", buffering=1) as file,
        os.fdopen(os.dup(2), "w", errors="backslashreplace") as terminal,
    ):

        def say(line: str) -> None:
            print(line, file=file)
            if QUIET not in os.environ:
                with suppress(OSError):  # the reader has gone
                    print(line, file=terminal, flush=True)

        def fail(reason: str) -> NoReturn:
            try:
                print(reason, file=file)
            except OSError:  # the disk is full: the reason must not be lost with it
                print(reason, file=terminal, flush=True)
            sys.exit(1)

        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        try:
            with (
                progress.of_job(Path(path)),
                kept.finished(getattr(sys.modules["__main__"], "snakemake", None)),
            ):
                yield say
        except kept.FinishedError:
            print("this job had finished before its SLURM job was cut off")
            sys.exit(0)
        except ExpoflowError as error:
            fail(f"error: {error}")
        except KeyboardInterrupt:
            fail("error: interrupted; run snakemake again to go on")
        except BaseException as error:
            trace, line = last_words(error, path)
            fail(f"{trace}error: {line}")
