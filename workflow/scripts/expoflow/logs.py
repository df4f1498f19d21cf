"""What a job writes while it runs goes to its rule's log file; the workflow's closing words."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from expoflow import collector
from expoflow.errors import ExpoflowError


@contextmanager
def job_log(path: str, threads: int = 1, offline: bool = True) -> Iterator[Callable[[str], None]]:
    """Send stdout and stderr, those of subprocesses too, to `path` and set the job's environment.

    Yields `say`, for the one line that a job has to tell: it goes to the log and to the terminal. An ExpoflowError is written as its message, any other exception with its traceback; either ends
    the process with status 1. Call it before torch or numpy is imported: it sets their thread count.
    """
    collector.relax()
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
    with open(path, "w", encoding="utf-8", buffering=1) as file, os.fdopen(os.dup(2), "w") as terminal:

        def say(line: str) -> None:
            print(line, file=file)
            print(line, file=terminal, flush=True)

        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        try:
            yield say
        except ExpoflowError as error:
            print(f"error: {error}", file=file)
            sys.exit(1)
        except BaseException:
            traceback.print_exc(file=file)
            sys.exit(1)
