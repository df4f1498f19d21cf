"""Do prompts that judge a choice of alpha take part in it? Told by their ids, before any job."""

import json
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress

from expoflow.config import Config
from expoflow.config.benchmarks import OnPrompts
from expoflow.data import prompts as prompt_sets
from expoflow.errors import DataError
from expoflow.files.records import read_text
from expoflow.paths import RESULTS, Results

Ids = Mapping[str, Set[str]]
REMEDY = "name prompts that take no part in it, or remove the benchmark and write select: {judge: 0.5}"


def problems(config: Config, loaded: Ids) -> Iterator[str]:
    """Sets of which no prompt can judge, since all of them choose alpha.

    `loaded` has the ids of the sets of files that are not finished. A finished set may be of an earlier config: of two such sets
    it counts what the config says, and what is in them is told by `notes`.
    """
    for where, chose, judges in _judged(config):
        one, other = config.prompts[chose], config.prompts[judges]
        same = _drawn_from(config, judges) == _drawn_from(config, chose)
        whole = same and (one.subset is None or one.canonical() == other.canonical())
        if not whole and {chose, judges} & loaded.keys():
            ids = [_of_source(config, name, loaded) for name in (judges, chose)]
            whole = bool(ids[0]) and ids[0] <= ids[1]
        if whole:
            yield f"{where}: all prompts of '{judges}' choose alpha too, as '{chose}'; {REMEDY}"


def notes(config: Config, loaded: Ids, results: Results = RESULTS) -> Iterator[str]:
    """Sets of which some prompts choose alpha too, as far as sets are `loaded`, or finished in `results`."""
    for where, chose, judges in _judged(config):
        ids = [loaded.get(name) or _finished(name, results) for name in (judges, chose)]
        common = len(ids[0] & ids[1])
        counted = "do not count in the certificate, but they do in the benchmark"
        if common:
            yield (
                f"WARNING: {where}: {common} of the {len(ids[0])} prompts of '{judges}' choose alpha too, as '{chose}'. They {counted}; "
                "remove them from one of the two sets"
            )
        elif not all(ids) and _drawn_from(config, judges) == _drawn_from(config, chose):
            yield (
                f"WARNING: {where}: '{judges}' and '{chose}' are drawn from the same prompts. Those that are in both {counted}; take "
                "another split for one of them"
            )


def _judged(config: Config) -> Iterator[tuple[str, str, str]]:
    """Where a benchmark is asked for, the set that chooses alpha, and the one that judges: every two of them once."""
    seen: set[tuple[str, str]] = set()
    for name in config.pairs:
        chose = config.section(name, "generate").prompts
        for benchmark, section in config.section(name, "benchmarks").sections().items():
            if isinstance(section, OnPrompts) and (chose, section.prompts) not in seen:
                seen.add((chose, section.prompts))
                yield f"pairs.{name}.benchmarks.{benchmark}.prompts", chose, section.prompts


def _drawn_from(config: Config, name: str) -> str:
    """Canonical JSON of what a set is all or a part of."""
    return config.prompts[name].canonical(exclude={"subset", "seed"})


def _of_source(config: Config, name: str, loaded: Ids) -> Set[str]:
    """The ids of a set of a file; none if it is no such set, or the file is broken."""
    source = config.prompts[name]
    if name not in loaded and source.file is not None:
        with suppress(DataError):
            return {prompt.prompt_id for prompt in prompt_sets.load(source, config.seed)}
    return loaded.get(name, frozenset())


def _finished(name: str, results: Results) -> Set[str]:
    """The ids of a finished set; none of one that is not there, or is broken, which the jobs that read it say."""
    with suppress(DataError, ValueError, KeyError, TypeError):
        lines = read_text(results.prompts(name)).split("\n")
        return {json.loads(line)["prompt_id"] for line in lines if line}
    return frozenset()
