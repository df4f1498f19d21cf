"""What the judges of a config may cost, told before anything is generated: by the number of calls and their limits.

The bill of a benchmark's job, from the prompts as they are and without what is kept, comes before its first call.
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
    """By (pair, benchmark) how many results of its own it has not yet: of the three variants, or the comparison alone; none where it has
    all."""
    missing = {
        (pair, benchmark): sum(
            not results.benchmark(pair, variant, benchmark).exists() for variant in section.RESULTS
        )
        for pair in config.pairs
        for benchmark, section in config.section(pair, "benchmarks").sections().items()
    }
    return {place: count for place, count in missing.items() if count}


def judge(section: Strict) -> JudgeConfig | None:
    """The judge of a benchmark's section that is somebody else's; the miniature's own costs nothing."""
    found = getattr(section, "judge", None)
    return found if found and found.base_url != MINIATURE else None


def lines(config: Config, results: Results = RESULTS) -> Iterator[str]:
    """A line for every benchmark that a judge is still to be asked for, over all pairs and variants.

    Without a package that the benchmark needs it is not known how the judge is asked.
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
        yield f"bill: {benchmark}: {count} calls of {model} ({words}), less the verdicts that are kept"


def _lacking(package: str) -> bool:
    return importlib.util.find_spec(package) is None
