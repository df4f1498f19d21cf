"""Before any job, compare ids and texts: do prompts that judge the choice of alpha take part in
it?"""

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

# The content of a set's prompts by id: images, and texts without system messages, ignoring white
# space and case.
Said = Mapping[str, tuple[str, ...]]
REMEDY = "name prompts that take no part in it, or remove the benchmark and write select: {judge: 0.5}"


def said(prompts: Iterable[Prompt]) -> Said:
    """The content of a set's prompts, by id."""
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
    """Sets that cannot judge, since all of their prompts choose alpha.

    `loaded` has the unfinished sets that come from files. A finished set may come from an earlier
    config. If both sets are finished, only the config is compared here, and `notes` reports on
    their content.
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
    """Warnings about judging sets that share prompts with the choice, if they are `loaded` or
    finished."""
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
                " only in white space, case or system message. They count in the certificate; remove them from one of the two sets"
            )
        elif not all(sets) and _drawn_from(config, judges) == _drawn_from(config, chose):
            yield (
                f"WARNING: {where}: '{judges}' and '{chose}' are drawn from the same prompts. Those that are in both {counted}; take "
                "another split for one of them"
            )


def _judged(config: Config) -> Iterator[tuple[str, str, str]]:
    """The place of a benchmark, the set that chooses alpha, and the set that judges. Each pair of
    sets occurs once."""
    seen: set[tuple[str, str]] = set()
    for name in config.pairs:
        chose = config.section(name, "generate").prompts
        for benchmark, section in config.section(name, "benchmarks").sections().items():
            if isinstance(section, OnPrompts) and (chose, section.prompts) not in seen:
                seen.add((chose, section.prompts))
                yield f"pairs.{name}.benchmarks.{benchmark}.prompts", chose, section.prompts


def _drawn_from(config: Config, name: str) -> str:
    """Canonical JSON of the source of a set, whether all or a part of it is used."""
    return config.prompts[name].canonical(exclude={"subset", "seed"})


def _of_source(config: Config, name: str, loaded: Mapping[str, Said]) -> Said:
    """The content of a set that comes from a file; empty for other sets, and if the file is
    broken."""
    source = config.prompts[name]
    if name not in loaded and source.file is not None:
        with suppress(DataError):
            return said(prompt_sets.load(source, config.seed))
    return loaded.get(name, {})


def _finished(name: str, results: Results) -> Said:
    """The content of a finished set; empty if it is missing or broken, which the jobs that read it
    report."""
    with suppress(DataError, ValueError):
        lines = read_text(results.prompts(name)).split("\n")
        return said(Prompt.model_validate(json.loads(line)) for line in lines if line)
    return {}
