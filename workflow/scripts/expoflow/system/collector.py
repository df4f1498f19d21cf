"""Python's collector of reference cycles, in processes that import torch or transformers."""

import atexit
import gc

THRESHOLD = 100_000  # new objects minus freed ones between two collections; Python's default is 700


def relax() -> None:
    """Collect less often, and not at exit.

    Imports leave a million objects that live as long as the process. Scanning them again and again
    takes a fifth to a quarter of the CPU time of `python -c "import torch"`.
    """
    gc.set_threshold(THRESHOLD, 50, 100)
    atexit.register(gc.freeze)
