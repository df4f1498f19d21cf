"""Do prompts that judge a choice of alpha take part in it? Told by their ids and texts, before any job."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from expoflow.config import Config
from expoflow.config.benchmarks import OnPrompts
from expoflow.data import prompts as prompt_sets
from expoflow.errors import DataError
from expoflow.files.records import read_text
from expoflow.paths import RESULTS, Results
from expoflow.results import Prompt

# Of a set's prompts by id what they say: texts without regard to white space, case and system messages, and images.
Said = Mapping[str, tuple[str, ...]]
REMEDY = "name prompts that take no part in it, or remove the benchmark and write select: {judge: 0.5}"


def said(prompts: Iterable[Prompt]) -> Said:
    """What the prompts of a set say."""
    return {
        prompt.prompt_id: tuple(
            part
            for message in prompt.messages
            if message.role != "system"
            for part in (
                " ".join(message.content.casefold().split()),
                *(image.sha256 for image in message.images or ()),
            )
        )
        for prompt in prompts
    }


def problems(config: Config, loaded: Mapping[str, Said]) -> Iterator[str]:
    """Sets of which no prompt can judge, since all of them choose alpha.

    `loaded` has the sets of files that are not finished. A finished set may be of an earlier config: of two such sets
    it counts what the config says, and what is in them is told by `notes`.
    """
    for where, chose, judges in _judged(config):
        one, other = config.prompts[chose], config.prompts[judges]
        same = _drawn_from(config, judges) == _drawn_from(config, chose)
        whole = same and (one.subset is None or one.canonical() == other.canonical())
        if not whole and {chose, judges} & loaded.keys():
            texts = [set(_of_source(config, name, loaded).values()) for name in (judges, chose)]
            whole = bool(texts[0]) and texts[0] <= texts[1]
        if whole:
            yield f"{where}: all prompts of '{judges}' choose alpha too, as '{chose}'; {REMEDY}"


def notes(config: Config, loaded: Mapping[str, Said], results: Results = RESULTS) -> Iterator[str]:
    """Sets of which some prompts choose alpha too, as far as sets are `loaded`, or finished in `results`."""
    for where, chose, judges in _judged(config):
        sets = [loaded.get(name) or _finished(name, results) for name in (judges, chose)]
        common, texts = len(sets[0].keys() & sets[1].keys()), set(sets[1].values())
        alike = sum(text in texts for prompt, text in sets[0].items() if prompt not in sets[1])
        counted = "do not count in the certificate, but they do in the benchmark"
        if common:
            yield (
                f"WARNING: {where}: {common} of the {len(sets[0])} prompts of '{judges}' choose alpha too, as '{chose}'. They {counted}; "
                "remove them from one of the two sets"
            )
        if alike:
            yield (
                f"WARNING: {where}: {alike} of the {len(sets[0])} prompts of '{judges}' differ from prompts of '{chose}', which choose alpha,"
                " in white space, case or system message alone. They count in the certificate; remove them from one of the two sets"
            )
        elif not all(sets) and _drawn_from(config, judges) == _drawn_from(config, chose):
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


def _of_source(config: Config, name: str, loaded: Mapping[str, Said]) -> Said:
    """A set of a file; nothing if it is no such set, or the file is broken."""
    source = config.prompts[name]
    if name not in loaded and source.file is not None:
        with suppress(DataError):
            return said(prompt_sets.load(source, config.seed))
    return loaded.get(name, {})


def _finished(name: str, results: Results) -> Said:
    """A finished set; nothing of one that is not there, or is broken, which the jobs that read it say."""
    with suppress(DataError, ValueError):
        lines = read_text(results.prompts(name)).split("\n")
        return said(Prompt.model_validate(json.loads(line)) for line in lines if line)
    return {}
