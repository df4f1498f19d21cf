"""Check a config for names that do not exist, and for sections that do not fit together."""

import difflib
from collections.abc import Iterable, Iterator

from expoflow.config import Config
from expoflow.config.base import DIFFERENCE
from expoflow.config.benchmarks import BENCHMARKS, SECTIONS, OnPrompts
from expoflow.config.claims import VARIED
from expoflow.config.figures import KINDS
from expoflow.config.sources import DATASET_SOURCES, PROMPT_SOURCES, SOURCES
from expoflow.config.stages import WITHOUT_REWARDS
from expoflow.reporting import paper
from expoflow.selection.criteria import CRITERIA


def reference_problems(config: Config) -> list[str]:
    """Names that do not exist, and cycles of `from:`."""
    problems = []

    def need(where: str, name: str | None, known: Iterable[str], kind: str) -> None:
        problems.extend(_unknown(where, name, known, kind))

    for name, model in config.models.items():
        need(f"models.{name}.train.from", model.base, config.models, "model")
        need(f"models.{name}.train.data", model.dataset, config.datasets, "dataset")
        need(f"models.{name}.train.reward_model", model.reward_model, config.models, "model")
    for name, pair in config.pairs.items():
        need(f"pairs.{name}.sft", pair.sft, config.models, "model")
        need(f"pairs.{name}.aligned", pair.aligned, config.models, "model")
        if pair.sft == pair.aligned:
            problems.append(f"pairs.{name}: sft and aligned are both '{pair.sft}'; name two different models")
        need(
            f"pairs.{name}.generate.prompts",
            config.section(name, "generate").prompts,
            config.prompts,
            "prompt set",
        )
        for each, section in config.section(name, "benchmarks").sections().items():
            named = section.prompts if isinstance(section, OnPrompts) else None
            need(f"pairs.{name}.benchmarks.{each}.prompts", named, config.prompts, "prompt set")
        need(f"pairs.{name}.paper", pair.paper, paper.MODELS, "model of the paper")
        need(f"pairs.{name}.trained_on_dev", pair.trained_on_dev, config.pairs, "pair")
    need("reward_model", config.reward_model, config.models, "model")
    problems += [
        *_figure_problems(config),
        *_dev_problems(config),
        *_claim_problems(config),
        *_reward_problems(config),
        *_held_out_problems(config),
        *_theory_problems(config),
    ]
    return problems + list(_kind_problems(config)) + _cycles(config)


def _unknown(where: str, name: str | None, known: Iterable[str], kind: str) -> Iterator[str]:
    """A problem if `name` is not one of `known`."""
    if name is not None and name not in known:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known) or 'none'}"
        yield f"{where}: no {kind} '{name}'; {hint}"


def _figure_problems(config: Config) -> Iterator[str]:
    """Figures with pairs that do not exist or that lack the benchmark."""
    for name, figure in (config.figures or {}).items():
        where, named, benchmarks = f"figures.{name}", figure.named() or [], figure.benchmarks()
        given = f"{where}.groups" if figure.groups else f"{where}.pairs"
        problems = [
            *(line for pair in named for line in _unknown(given, pair, config.pairs, "pair")),
            *(
                line
                for pair in figure.labels
                for line in _unknown(f"{where}.labels", pair, config.pairs, "pair")
            ),
            *(
                line
                for benchmark in benchmarks
                for line in _unknown(where, benchmark, BENCHMARKS, "benchmark")
            ),
            *(
                f"{where}: {benchmark} compares two models, and has no values of each to show; leave it out"
                for benchmark in benchmarks
                if benchmark in SECTIONS and DIFFERENCE in SECTIONS[benchmark].RESULTS
            ),
        ]
        if len(set(figure.pairs or ())) < len(figure.pairs or ()):
            problems.append(f"{given}: a pair occurs twice; remove one")
        yield from problems or _absent_benchmarks(config, where, named, benchmarks)


def _theory_problems(config: Config) -> Iterator[str]:
    """Problems of the section theory: unknown names, planes with two SFT models, figures without
    measurements."""
    planes = config.theory.planes if config.theory else {}
    if config.theory:
        yield from _unknown("theory.prompts", config.theory.prompts, config.prompts, "prompt set")
    for name, plane in planes.items():
        where = f"theory.planes.{name}.pairs"
        problems = [line for pair in plane.pairs for line in _unknown(where, pair, config.pairs, "pair")]
        yield from problems
        if problems:
            continue
        one, other = (config.pairs[pair] for pair in plane.pairs)
        if one.sft != other.sft:
            yield f"{where}: they start from '{one.sft}' and '{other.sft}'; name pairs with the same sft"
        elif one.aligned == other.aligned:
            yield f"{where}: both have the aligned model '{one.aligned}'; name pairs with different ones"
    for name, figure in (config.figures or {}).items():
        kind = KINDS[figure.kind]
        if kind.theory and config.theory is None:
            yield f"figures.{name}: kind {figure.kind} shows what theory measures; add theory: {{}}"
        elif figure.plane is not None:
            yield from _unknown(f"figures.{name}.plane", figure.plane, planes, "plane")
            if figure.pairs is not None:
                yield f"figures.{name}.pairs: a plane has its own pairs; remove them"
        elif kind.kin:
            kin = [pair for pairs in config.kin().values() for pair in pairs]
            for pair in figure.named() or []:
                if pair in config.pairs and pair not in kin:
                    yield f"figures.{name}: pair '{pair}' shares its sft with no other; leave it out"


def _absent_benchmarks(config: Config, where: str, named: list[str], benchmarks: list[str]) -> Iterator[str]:
    """Benchmarks of a figure that one of its pairs lacks, or that no pair has."""
    for benchmark in benchmarks:
        having = [pair for pair in config.pairs if benchmark in config.section(pair, "benchmarks").names()]
        for pair in named:
            if pair not in having:
                yield f"{where}: pair '{pair}' has no benchmark {benchmark}; add it, or leave the pair out"
        if not named and not having:
            yield f"{where}: no pair has benchmark {benchmark}; add it to benchmarks, or remove the figure"


def _dev_problems(config: Config) -> Iterator[str]:
    """Problems of pairs with `trained_on_dev`, which are compared with another pair."""
    for name, pair in config.pairs.items():
        where, other = f"pairs.{name}.trained_on_dev", pair.trained_on_dev
        if other == name:
            yield f"{where}: '{name}' is the pair itself; name that of the model trained further"
        elif other in config.pairs and config.section(other, "generate").prompts != (
            prompts := config.section(name, "generate").prompts
        ):
            yield f"{where}: '{other}' has other prompts to choose alpha; set its generate.prompts to {prompts}"


def _claim_problems(config: Config) -> Iterator[str]:
    """Claims that the named pairs cannot answer."""
    if config.claims and config.reward_model is None:
        yield "claims: they compare rewards and need reward_model; add it, or remove the section"
    for key, pairs in (config.claims.named() if config.claims else {}).items():
        where = f"claims.{key}"
        unknown = [line for pair in pairs for line in _unknown(where, pair, config.pairs, "pair")]
        yield from unknown
        if unknown:
            continue
        if key in VARIED:
            values = {pair: config.setting(pair, VARIED[key]) for pair in pairs}
            lacking = [pair for pair, value in values.items() if value is None]
            for pair in lacking:
                yield f"{where}: the aligned model of '{pair}' has no {VARIED[key]}; leave the pair out"
            if not lacking and (len(set(values.values())) < len(pairs) or len(pairs) < 2):
                yield f"{where}: the pairs must be two or more that differ in {VARIED[key]}; change the list"
        if key == "labelled":
            for pair in pairs:
                others = set(config.labellers(config.pairs[pair].aligned)) - {config.reward_model}
                if len(others) != 1:
                    yield f"{where}: no single other reward model labelled the training of '{pair}'; leave it out"


def _held_out_problems(config: Config) -> Iterator[str]:
    """Prompts that should judge the choice of alpha, but also make it or are not needed."""
    if config.claims and any(config.section(name, "select").judge is not None for name in config.pairs):
        yield "select.judge: the section claims reads the rewards of all prompts; remove one of the two"
    for name in config.pairs:
        select, chosen_on = config.section(name, "select"), config.section(name, "generate").prompts
        reward = config.section(name, "benchmarks").reward
        if not reward or not config.reward_model:
            continue
        if reward.prompts == chosen_on:
            yield (
                f"pairs.{name}.benchmarks.reward.prompts: '{chosen_on}' chooses alpha too; name prompts that take no part in it, "
                "or remove the benchmark and write select: {judge: 0.5}"
            )
        elif select.judge is not None:
            yield (
                f"pairs.{name}.select.judge: benchmarks.reward judges the choice on '{reward.prompts}' already; give judge to the select of "
                "other pairs only, or remove the benchmark"
            )


def _reward_problems(config: Config) -> Iterator[str]:
    """Settings that need a reward model if there is none."""
    if config.reward_model is not None:
        return
    for name, pair in config.pairs.items():
        where, select = f"pairs.{name}", config.section(name, "select")
        if CRITERIA[select.by].rewarded:
            yield f"{where}.select.by: {select.by} needs reward_model; add it, or set by: {WITHOUT_REWARDS}"
        for other in (name for name in select.others() if CRITERIA[name].rewarded):
            yield f"{where}.select.compare: {other} needs reward_model; add it, or leave {other} out"
        yield from _unmeasured(config, name)
        if pair.trained_on_dev:
            yield f"{where}.trained_on_dev: needs reward_model, for it compares rewards; add it, or remove this"
    for name, figure in (config.figures or {}).items():
        if figure.shows_rewards():
            yield f"figures.{name}: shows rewards and needs reward_model; add it, or remove the figure"
    for name in config.theory.planes if config.theory else ():
        yield f"theory.planes.{name}: shows rewards and needs reward_model; add it, or remove the plane"
    if config.reward_check:
        yield "reward_check: there is no reward_model to check; add it, or remove reward_check"


def _unmeasured(config: Config, pair: str) -> Iterator[str]:
    """Benchmarks that score responses without a reward model on a prompt set without known true
    quality."""
    for benchmark, section in config.section(pair, "benchmarks").sections().items():
        named = section.prompts if isinstance(section, OnPrompts) and section.REWARDS else None
        prompts = config.prompts.get(named)
        if prompts and not prompts.miniature:
            yield (
                f"pairs.{pair}.benchmarks.{benchmark}: needs reward_model, since true quality on '{named}' is not"
                " known; add it, or remove the benchmark"
            )


def _kind_problems(config: Config) -> Iterator[str]:
    """Reward models in the place of language models, and vice versa."""
    scoring = {name: model.train.SCORES for name, model in config.models.items() if model.train}
    members = [(f"pairs.{name}.sft", pair.sft) for name, pair in config.pairs.items()]
    members += [(f"pairs.{name}.aligned", pair.aligned) for name, pair in config.pairs.items()]
    members += [(f"models.{name}.train.from", model.base) for name, model in config.models.items()]
    for where, name in members:
        if scoring.get(name):
            yield f"{where}: '{name}' is a reward model; name a language model"
    scorers = [("reward_model", config.reward_model)]
    scorers += [
        (f"models.{name}.train.reward_model", model.reward_model) for name, model in config.models.items()
    ]
    for where, name in scorers:
        if not scoring.get(name, True):
            yield f"{where}: '{name}' is a language model; name one with recipe: reward"


def _cycles(config: Config) -> list[str]:
    """Models that would be needed to train themselves. Each cycle is reported once."""
    problems, reported = [], set()

    def visit(chain: list[str]) -> None:
        model = config.models.get(chain[-1])
        for needed in filter(None, (model.base, model.reward_model) if model else ()):
            if needed == chain[0] and needed not in reported:
                reported.update(chain)
                circle = " -> ".join([*chain, needed])
                problems.append(
                    f"models.{needed}.train: cycle {circle}; let one of them start from another model"
                )
            elif needed not in chain:
                visit([*chain, needed])

    for start in config.models:
        visit([start])
    return problems


def name_problems(config: Config) -> list[str]:
    """Names that a case-insensitive file system would confuse."""
    problems = []
    if "miniature" in config.datasets:
        problems.append("datasets.miniature: data: miniature is the built-in world; rename the dataset")
    for section in ("models", "datasets", "pairs", "prompts", "figures"):
        seen: dict[str, str] = {}
        for name in getattr(config, section) or ():
            other = seen.setdefault(name.lower(), name)
            if other != name:
                problems.append(f"{section}.{name}: differs from '{other}' only in case; rename one")
    return problems


def source_problems(config: Config) -> list[str]:
    """Models, datasets and prompt sets without exactly one source."""
    problems = []
    for section, keys in (
        ("models", SOURCES),
        ("datasets", DATASET_SOURCES),
        ("prompts", PROMPT_SOURCES),
    ):
        for name, entry in getattr(config, section).items():
            given = [key for key in keys if getattr(entry, key) is not None]
            if len(given) != 1:
                has = " and ".join(given) if given else "none"
                problems.append(
                    f"{section}.{name}: one source is needed, has {has}; give one of {', '.join(keys)}"
                )
    return problems
