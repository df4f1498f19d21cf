"""Benchmarks: sft, aligned and expo side by side, and the paired difference of the last two.

A benchmark is the module NAME of this package, or NAME.benchmark if it needs several, by the name of its config
section. It has two functions,

    run(job)                    one variant: writes job.rows (one JSON line an item) and job.result,
    run_comparison(comparison)  the paired differences expo - aligned, from the rows of both.

One that compares answers of others (`Benchmark.RESULTS`) has no `run`; its comparison gets these answers.
`job` and `comparison` have what all of them share. What is asked before any job stands in NAME.files, if there is
something to ask; it imports no torch, numpy or pandas, and may have (`section` is the benchmark's in the config)

    problems(section)                    lines on what is not as it must be, such as a file that is not there,
    pair_problems(section, pair)         the same of what belongs to one pair; asked before every run, also of a finished one,
    notes(section, pair)                 lines for `expoflow plan`,
    calls(section, max_tokens, first)    of one variant: calls of the judge, tokens of their prompts and of their replies,
    responses(section, generate, first)  of one variant: how many the model gives, and the most tokens that each may have,
    gather(section, seed, result)        writes a file that its jobs read: what the rule NAME_data does.

In a rehearsal only the `first` questions are asked, else all (None).

docs/contributing.md says how a benchmark is added.
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
    """A function of a benchmark's module `files`; None if it has no such function, or no such module."""
    name = f"{__name__}.{benchmark}"
    if not _several(name) or importlib.util.find_spec(f"{name}.files") is None:
        return None
    return getattr(importlib.import_module(f"{name}.files"), function, None)


def _several(name: str) -> bool:
    """Whether a benchmark is a folder of modules."""
    return bool(importlib.util.find_spec(name).submodule_search_locations)
