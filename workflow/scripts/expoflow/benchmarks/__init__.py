"""Benchmarks: sft, aligned and expo side by side, and the paired difference of the last two.

A benchmark is the module NAME of this package, or NAME.benchmark if it needs several modules. NAME
is the name of its config section. It has two functions:

    run(job)                    one variant: writes job.rows (one JSON line per item) and job.result
    run_comparison(comparison)  the paired differences expo - aligned, from the rows of both

A benchmark that compares existing answers (`Benchmark.RESULTS`) has no `run`; its comparison gets
these answers. The modules `job` and `comparison` have what all benchmarks share. The module
NAME.files is optional. It holds what is needed before any job, and imports no torch, numpy or
pandas. It may have these functions (`section` is the benchmark's section of the config):

    problems(section)                    lines on problems, such as a missing file
    pair_problems(section, pair)         the same for one pair; called before every run, even a finished one
    notes(section, pair)                 lines for `expoflow plan`
    calls(section, max_tokens, first)    one variant: calls of the judge, tokens of prompts and replies
    responses(section, generate, first)  one variant: number of responses, most tokens of each
    gather(section, seed, result)        writes a file that its jobs read (the rule NAME_data)

In a rehearsal only the `first` questions are asked; else `first` is None.

docs/contributing.md explains how to add a benchmark.
"""

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any


def module(benchmark: str) -> ModuleType:
    """The module that runs and compares a benchmark."""
    name = f"{__name__}.{benchmark}"
    return importlib.import_module(f"{name}.benchmark" if _several(name) else name)


def light(benchmark: str, function: str) -> Callable[..., Any] | None:
    """A function of a benchmark's module `files`; None if the function or the module is missing."""
    name = f"{__name__}.{benchmark}"
    if not _several(name) or importlib.util.find_spec(f"{name}.files") is None:
        return None
    return getattr(importlib.import_module(f"{name}.files"), function, None)


def _several(name: str) -> bool:
    """Whether a benchmark is a folder of modules."""
    return bool(importlib.util.find_spec(name).submodule_search_locations)
