"""Benchmarks: sft, aligned and expo side by side, and the paired difference of the last two.

A benchmark is the module NAME of this package, or NAME.benchmark if it needs several, by the name of its config
section. It has two functions,

    run(job)                    one variant: writes job.rows (one JSON line an item) and job.result,
    run_comparison(comparison)  the paired differences expo - aligned, from the rows of both.

`job` and `comparison` have what all of them share; docs/contributing.md says how one is added.
"""

import importlib
import importlib.util
from types import ModuleType


def module(benchmark: str) -> ModuleType:
    """The module that runs and compares a benchmark."""
    name = f"{__name__}.{benchmark}"
    several = importlib.util.find_spec(name).submodule_search_locations
    return importlib.import_module(f"{name}.benchmark" if several else name)
