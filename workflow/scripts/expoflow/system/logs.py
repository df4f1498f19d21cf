"""What a job writes while it runs goes to its rule's log file; the workflow's closing words."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from expoflow.errors import ExpoflowError
from expoflow.system import collector, kept, progress
from expoflow.system.last_words import last_words

QUIET = "EXPOFLOW_QUIET"  # by it a job knows that its lines are shown in another way


def settle(threads: int, offline: bool = True) -> None:
    """Set the environment of a process that runs models: its threads, and that libraries say little and ask nothing of the hub.

    Call it before torch or numpy is imported.
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
    if offline:  # a local path that is missing would otherwise become a request to the hub
        os.environ["HF_HUB_OFFLINE"] = "1"


@contextmanager
def job_log(path: str, threads: int = 1, offline: bool = True) -> Iterator[Callable[[str], None]]:
    """Send stdout and stderr, those of subprocesses too, to `path` and set the job's environment.

    Yields `say`, for the one line that a job has to tell: it goes to the log, and to the terminal unless `QUIET` is set. Any exception ends the
    process with status 1, and the log with a line "error: ...", written to the terminal if the log cannot be written:
    the message of an ExpoflowError, else what `last_words` gives, after its traceback. Call it before torch or numpy is
    imported: it sets their thread count. A job whose output is `kept` ends here, with status 0. How far it is, `progress` says
    beside the log.
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
                with suppress(OSError):  # who read it has gone
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
