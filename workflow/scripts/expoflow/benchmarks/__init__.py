"""Benchmarks: sft, aligned and expo side by side, and the paired difference of the last two.

A benchmark is a module of this package by the name of its config section, with two functions,

    run(job)                    one variant: writes job.rows (one JSON line an item) and job.result,
    run_comparison(comparison)  the paired differences expo - aligned, from the rows of both,

and a rule in rules/benchmark.smk that says what its results depend on; `benchmarks.job` has what they share.
"""

import importlib
from types import ModuleType


def module(benchmark: str) -> ModuleType:
    """The module that runs and compares a benchmark."""
    return importlib.import_module(f"expoflow.benchmarks.{benchmark}")
