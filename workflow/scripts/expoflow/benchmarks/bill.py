"""The most that the judges of a config may cost, from the number of calls and their limits.

It is shown before anything is generated. The job of a benchmark shows its own bill before its first
call. That bill counts the real prompts and leaves out the verdicts that are kept.
"""

import importlib.util
from collections.abc import Iterator

from expoflow import benchmarks
from expoflow.benchmarks.judge.costs import price
from expoflow.config import Config
from expoflow.config.base import MINIATURE, Strict
from expoflow.config.benchmarks import JudgeConfig
from expoflow.paths import RESULTS, Results


def unfinished(config: Config, results: Results = RESULTS) -> dict[tuple[str, str], int]:
    """The number of unfinished results, by (pair, benchmark); finished benchmarks are left out.

    A benchmark has results of the three variants, or only the comparison.
    """
    missing = {
        (pair, benchmark): sum(
            not results.benchmark(pair, variant, benchmark).exists() for variant in section.RESULTS
        )
        for pair in config.pairs
        for benchmark, section in config.section(pair, "benchmarks").sections().items()
    }
    return {place: count for place, count in missing.items() if count}


def judge(section: Strict) -> JudgeConfig | None:
    """The judge of a benchmark's section; None for the miniature's own, which costs nothing."""
    found = getattr(section, "judge", None)
    return found if found and found.base_url != MINIATURE else None


def lines(config: Config, results: Results = RESULTS) -> Iterator[str]:
    """A line for every benchmark that still needs its judge, over all pairs and variants.

    If a package that the benchmark needs is missing, its cost is not known.
    """
    calls: dict[tuple[str, str], int] = {}
    costs: dict[tuple[str, str], float | None] = {}
    unknown: dict[str, None] = {}
    for (pair, benchmark), variants in unfinished(config, results).items():
        section = getattr(config.section(pair, "benchmarks"), benchmark)
        asked, told = judge(section), benchmarks.light(benchmark, "calls")
        if not asked or not told:
            continue
        if lacking := next(filter(_lacking, section.PACKAGES), None):
            unknown[f"bill: {benchmark}: not known without {lacking}; pip install 'expoflow[bench]'"] = None
            continue
        count, prompt, reply = told(section, config.section(pair, "generate").max_tokens, config.limit)
        name = (benchmark, asked.model)
        calls[name] = calls.get(name, 0) + variants * count
        costs[name] = costs.get(name, 0.0) + variants * price(asked, prompt, reply)
    yield from unknown
    for (benchmark, model), count in calls.items():
        cost = costs[benchmark, model]
        words = f"at most {cost:.2f} USD without repeated ones" if cost else "no price in the config"
        yield f"bill: {benchmark}: {count} calls of {model} ({words}), minus the verdicts that are kept"


def _lacking(package: str) -> bool:
    return importlib.util.find_spec(package) is None
