"""Checks of a config: all of its problems at once, each on one line with the thing, the value and the remedy."""

import difflib
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from expoflow import paper
from expoflow import prompts as prompt_sets
from expoflow.adapter import base_source, is_adapter, open_adapter
from expoflow.benchmarks import alpaca_eval_data, bill, preferences, questions, task_data
from expoflow.config import (
    BENCHMARKS,
    DATASET_SOURCES,
    MEASURED,
    MINIATURE,
    PROMPT_SOURCES,
    RECIPES,
    SOURCES,
    TRAINED_ON,
    VARIED,
    Config,
    RewardCheck,
)
from expoflow.errors import CheckpointError, ConfigError, DataError
from expoflow.layout import accelerate_config

# Settings whose value may be a key that was put in the wrong place.
PRIVATE = ("base_url", "api_key_env")
# What the benchmarks need beside the base installation.
PACKAGES = {
    "alpaca_eval": ("alpaca_eval", "openai"),
    "mt_bench": ("openai",),
    "open_llm": ("lm_eval", "accelerate"),
}
TRAIN_EXTRA = ("trl", "accelerate", "peft")


def load(data: Mapping[str, Any], files: Iterable[str | Path], folder: Path = Path()) -> Config:
    """Check a config that was read from `files`, whose repeated keys would otherwise go unseen.

    Relative paths in it are relative to `folder`.
    """
    problems = [problem for file in files for problem in _repeated_keys(Path(file))]
    if problems:
        raise ConfigError(problems)
    return parse(data, folder)


def _repeated_keys(path: Path) -> list[str]:
    problems = []

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problems.append(
                    f"{path}:{key.start_mark.line + 1}: key '{key.value}' stands twice; rename or remove one"
                )
            seen.add(str(key.value))
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    with open(path, encoding="utf-8") as file:
        yaml.load(file, Loader)
    return problems


def parse(data: Mapping[str, Any], folder: Path = Path()) -> Config:
    """Check a config as read from YAML; all of its problems are in one ConfigError."""
    try:
        config = Config.model_validate(_with_bases(data, folder))
    except ValidationError as error:
        raise ConfigError([_explain(problem) for problem in error.errors(include_url=False)]) from None
    problems = [*_reference_problems(config), *_name_problems(config), *_source_problems(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _with_bases(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`data` with the base of every adapter that is aligned to no `sft`: one more model, named ADAPTER-base."""
    models, pairs = data.get("models"), data.get("pairs")
    if not isinstance(models, dict) or not isinstance(pairs, dict):
        return dict(data)
    models, pairs = dict(models), dict(pairs)
    for name, pair in pairs.items():
        aligned = pair.get("aligned") if isinstance(pair, dict) and "sft" not in pair else None
        source = models.get(aligned) if isinstance(aligned, str) else None
        path = source.get("path") if isinstance(source, dict) else None
        if isinstance(path, str) and is_adapter(folder / path):
            try:
                models.setdefault(f"{aligned}-base", base_source(folder / path))
            except CheckpointError as error:
                raise ConfigError([f"pairs.{name}.sft: {error}"]) from None
            pairs[name] = pair | {"sft": f"{aligned}-base"}
    return {**data, "models": models, "pairs": pairs}


def _explain(problem: Mapping[str, Any]) -> str:
    """One line for one pydantic error: where, the value, what is wrong, and the nearest key for a typo."""
    path = [part for part in problem["loc"] if part != "[key]"]
    if problem["type"] == "extra_forbidden":
        return _unknown_key(path)
    where = ".".join(_without_tags(path))
    if problem["type"] == "missing":
        return f"{where}: missing; add it"
    message = re.sub("^(Input|List|Dictionary|String) should", "must", problem["msg"])
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        message = f"must have recipe: {', '.join(RECIPES[:-1])} or {RECIPES[-1]}"
    value = problem["input"]
    scalar = isinstance(value, str | int | float | None) and path[-1] not in PRIVATE
    return f"{where}: {value!r} is not accepted: {message}" if scalar else f"{where}: {message}"


def _unknown_key(path: list[Any]) -> str:
    known = _keys_at(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(sorted(known))}"
    return f"{'.'.join(_without_tags(path))}: unknown key '{path[-1]}'; {hint}"


def _keys_at(path: Iterable[Any]) -> list[str]:
    """Keys of the config section at `path`."""
    section: Any = Config
    for part in path:
        section = _step(section, part)
    return [field.alias or name for name, field in section.model_fields.items()]


def _step(section: Any, part: Any) -> Any:
    """The section one step further along a pydantic error location, where a recipe's name is a step too."""
    if isinstance(section, list):
        chosen = [option for option in section if part in _tags(option)]
        return chosen[0] if len(chosen) == 1 else chosen
    if get_origin(section) in (dict, list):
        options = _options(get_args(section)[-1])
    else:
        options = _options(section.model_fields[part].annotation)
    return options[0] if len(options) == 1 else options


def _tags(recipe: Any) -> tuple[str, ...]:
    """What pydantic calls a recipe's model in an error's location, one after the other."""
    fields = recipe.model_fields
    return *(get_args(fields["data"].annotation) or ("dataset",)), *get_args(fields["recipe"].annotation)


def _options(annotation: Any) -> list[Any]:
    """Members of a union, `Annotated` and None taken off."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) is Union or str(type(annotation)) == "<class 'types.UnionType'>":
        return [o for a in get_args(annotation) if a is not type(None) for o in _options(a)]
    return [annotation]


def _without_tags(path: list[Any]) -> list[str]:
    """`path` without what pydantic puts behind `train`: what the model is trained on, and by which recipe."""
    parts = [str(part) for part in path]
    for index, part in enumerate(parts):
        if part == "train" and parts[index + 1 : index + 2] and parts[index + 1] in TRAINED_ON:
            tags = 2 if parts[index + 2 : index + 3] and parts[index + 2] in RECIPES else 1
            return parts[: index + 1] + parts[index + 1 + tags :]
    return parts


def _reference_problems(config: Config) -> list[str]:
    """Names that do not exist, and cycles of `from:`."""
    problems = []

    def need(where: str, name: str | None, known: Iterable[str], kind: str) -> None:
        problems.extend(_unknown(where, name, known, kind))

    for name, model in config.models.items():
        need(f"models.{name}.train.from", model.base, config.models, "model")
        need(f"models.{name}.train.data", model.dataset, config.datasets, "dataset")
        need(f"models.{name}.train.reward_model", model.judge, config.models, "model")
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
        reward = config.section(name, "benchmarks").reward
        need(
            f"pairs.{name}.benchmarks.reward.prompts", reward and reward.prompts, config.prompts, "prompt set"
        )
        need(f"pairs.{name}.paper", pair.paper, paper.MODELS, "model of the paper")
        need(f"pairs.{name}.trained_on_dev", pair.trained_on_dev, config.pairs, "pair")
    need("reward_model", config.reward_model, config.models, "model")
    problems += [
        *_figure_problems(config),
        *_dev_problems(config),
        *_claim_problems(config),
        *_reward_problems(config),
        *_theory_problems(config),
    ]
    return problems + list(_kind_problems(config)) + _cycles(config)


def _unknown(where: str, name: str | None, known: Iterable[str], kind: str) -> Iterator[str]:
    """A problem where `name` is not one of `known`."""
    if name is not None and name not in known:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known) or 'none'}"
        yield f"{where}: no {kind} '{name}'; {hint}"


def _figure_problems(config: Config) -> Iterator[str]:
    """Figures of pairs that do not exist, or that lack the benchmark."""
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
        ]
        if len(set(figure.pairs or ())) < len(figure.pairs or ()):
            problems.append(f"{given}: a pair stands twice; remove one")
        yield from problems or _absent_benchmarks(config, where, named, benchmarks)


def _theory_problems(config: Config) -> Iterator[str]:
    """Names of the section theory that do not exist, planes of two SFT models, figures of what is not measured."""
    planes = config.theory.planes if config.theory else {}
    if config.theory:
        yield from _unknown("theory.prompts", config.theory.prompts, config.prompts, "prompt set")
    if planes and config.reward_model is None:
        yield "theory.planes: show rewards, and there is no reward_model; name one, or remove the planes"
    for name, plane in planes.items():
        where = f"theory.planes.{name}.pairs"
        problems = [line for pair in plane.pairs for line in _unknown(where, pair, config.pairs, "pair")]
        yield from problems
        if problems:
            continue
        one, other = (config.pairs[pair] for pair in plane.pairs)
        if one.sft != other.sft:
            yield f"{where}: they begin with '{one.sft}' and with '{other.sft}'; name pairs with the same sft"
        elif one.aligned == other.aligned:
            yield f"{where}: both have the aligned model '{one.aligned}'; name pairs with different ones"
    for name, figure in (config.figures or {}).items():
        if figure.kind in MEASURED and config.theory is None:
            yield f"figures.{name}: kind {figure.kind} shows what theory measures; add theory: {{}}"
        elif figure.kind == "plane":
            yield from _unknown(f"figures.{name}.plane", figure.plane, planes, "plane")
            if figure.pairs is not None:
                yield f"figures.{name}.pairs: a plane has its own pairs; remove them"
        elif figure.kind == "cosines":
            kin = [pair for pairs in config.kin().values() for pair in pairs]
            for pair in figure.named() or []:
                if pair in config.pairs and pair not in kin:
                    yield f"figures.{name}: pair '{pair}' shares its sft with no other; leave it out"


def _absent_benchmarks(config: Config, where: str, named: list[str], benchmarks: list[str]) -> Iterator[str]:
    """Benchmarks of a figure that its pairs, or all of them, lack."""
    for benchmark in benchmarks:
        having = [pair for pair in config.pairs if benchmark in config.section(pair, "benchmarks").names()]
        for pair in named:
            if pair not in having:
                yield f"{where}: pair '{pair}' has no benchmark {benchmark}; add it, or leave the pair out"
        if not named and not having:
            yield f"{where}: no pair has benchmark {benchmark}; add it to benchmarks, or remove the figure"


def _dev_problems(config: Config) -> Iterator[str]:
    """Models trained on the dev prompts, whose reward is compared with another one's."""
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


def _reward_problems(config: Config) -> Iterator[str]:
    """What is asked of a reward model where there is none."""
    if config.reward_model is not None:
        return
    for name, pair in config.pairs.items():
        where, select = f"pairs.{name}", config.section(name, "select")
        if select.by == "reward":
            yield f"{where}.select.by: reward needs reward_model; add it, or set by: nll"
        if "reward" in select.others():
            yield f"{where}.select.compare: reward needs reward_model; add it, or leave reward out"
        benchmark = config.section(name, "benchmarks").reward
        prompts = config.prompts.get(benchmark.prompts) if benchmark else None
        if prompts and not prompts.miniature:
            yield (
                f"{where}.benchmarks.reward: needs reward_model, for what is true of '{benchmark.prompts}' is not"
                " known; add it, or remove the benchmark"
            )
        if pair.trained_on_dev:
            yield f"{where}.trained_on_dev: needs reward_model, for it compares rewards; add it, or remove this"
    for name, figure in (config.figures or {}).items():
        if figure.shows_rewards():
            yield f"figures.{name}: shows rewards and needs reward_model; add it, or remove the figure"
    for name in config.theory.planes if config.theory else ():
        yield f"theory.planes.{name}: shows rewards and needs reward_model; add it, or remove the plane"
    if config.reward_check:
        yield "reward_check: there is no reward_model to check; add it, or remove reward_check"


def _kind_problems(config: Config) -> Iterator[str]:
    """A reward model where a language model is needed, and the other way round."""
    trained = {name: model.train.recipe for name, model in config.models.items() if model.train}
    members = [(f"pairs.{name}.sft", pair.sft) for name, pair in config.pairs.items()]
    members += [(f"pairs.{name}.aligned", pair.aligned) for name, pair in config.pairs.items()]
    members += [(f"models.{name}.train.from", model.base) for name, model in config.models.items()]
    for where, name in members:
        if trained.get(name) == "reward":
            yield f"{where}: '{name}' is a reward model; name a language model"
    judges = [("reward_model", config.reward_model)]
    judges += [(f"models.{name}.train.reward_model", model.judge) for name, model in config.models.items()]
    for where, name in judges:
        if trained.get(name, "reward") != "reward":
            yield f"{where}: '{name}' is a language model; name one with recipe: reward"


def _cycles(config: Config) -> list[str]:
    """Models that would be needed to train themselves, each circle told once."""
    problems, reported = [], set()

    def visit(chain: list[str]) -> None:
        model = config.models.get(chain[-1])
        for needed in filter(None, (model.base, model.judge) if model else ()):
            if needed == chain[0] and needed not in reported:
                reported.update(chain)
                circle = " -> ".join([*chain, needed])
                problems.append(f"models.{needed}.train: cycle {circle}; let one of them begin elsewhere")
            elif needed not in chain:
                visit([*chain, needed])

    for start in config.models:
        visit([start])
    return problems


def _name_problems(config: Config) -> list[str]:
    """Names that a file system which ignores case would mix up."""
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


def _source_problems(config: Config) -> list[str]:
    """Models, datasets and prompt sets need exactly one source."""
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


def check_sources(config: Config, results: Path = Path("results")) -> None:
    """Look at the files that a config names; all problems are in one ConfigError.

    A source whose manifest or prompt file is finished is not looked at again. Costs no torch import.
    """
    problems = []
    for name, model in config.models.items():
        if model.path is not None and not (results / "models" / f"{name}.json").exists():
            problems += _folder_problems(f"models.{name}.path", Path(model.path))
        problems += _template_problems(f"models.{name}.chat_template", model.chat_template)
        if model.train and not (results / "models" / f"{name}.json").exists():
            problems += _trainer_problems(f"models.{name}.train", model.train)
    for name, dataset in config.datasets.items():
        if dataset.file and not Path(dataset.file).is_file():
            problems.append(f"datasets.{name}.file: no file '{dataset.file}'; correct the path")
    for name, pair in config.pairs.items():
        if (path := config.models[pair.sft].path) and is_adapter(path):
            problems.append(
                f"pairs.{name}.sft: '{pair.sft}' is an adapter; name a whole model, such as its base"
            )
    for name, prompts in config.prompts.items():
        if prompts.file is not None and not (results / "prompts" / f"{name}.jsonl").exists():
            try:
                prompt_sets.load(prompts, config.seed)
            except DataError as error:
                problems.append(f"prompts.{name}.file: {error}")
    problems += _engine_problems(config)
    problems += dict.fromkeys(_benchmark_problems(config, results))
    if problems:
        raise ConfigError(problems)


def check_keys(config: Config, results: Path = Path("results")) -> None:
    """Whether the keys of the judges that are still to be asked are in the environment. Raises ConfigError."""
    problems = []
    for pair, benchmark in bill.unfinished(config, results):
        judge = bill.judge(getattr(config.section(pair, "benchmarks"), benchmark))
        if judge and (key := judge.api_key_env) and not os.environ.get(key):
            problems.append(
                f"benchmarks.{benchmark}.judge: ${key} is not set; export {key}=KEY, or set api_key_env: '' if"
                f" {judge.base_url} needs none"
            )
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def _benchmark_problems(config: Config, results: Path) -> Iterator[str]:
    """Packages and files that unfinished benchmarks need and that are not there."""
    for pair, benchmark in bill.unfinished(config, results):
        for package in PACKAGES.get(benchmark, ()):
            if importlib.util.find_spec(package) is None:
                yield f"benchmarks.{benchmark}: {package} is not installed; pip install 'expoflow[bench]'"
        if benchmark == "mt_bench":
            section = config.section(pair, "benchmarks").mt_bench
            try:
                if section.data not in (None, MINIATURE):
                    questions.gather(section, config.seed)
            except DataError as error:
                yield f"benchmarks.mt_bench.data: {error}"
        if benchmark == "alpaca_eval":
            yield from alpaca_eval_data.problems(config.section(pair, "benchmarks").alpaca_eval)
        if benchmark == "open_llm":
            yield from task_data.problems(config.section(pair, "benchmarks").open_llm)
    unmeasured = any(not (results / "pairs" / pair / "theory.json").exists() for pair in config.pairs)
    if config.theory and config.theory.preferences != MINIATURE and unmeasured:
        yield from preferences.problems(RewardCheck(file=config.theory.preferences), "theory.preferences")
    if config.reward_check and not (results / "benchmarks" / "preferences.jsonl").exists():
        yield from preferences.problems(config.reward_check)


def _engine_problems(config: Config) -> Iterator[str]:
    """Engines that a config asks for and this installation lacks."""
    asked = {"generate.engine": config.generate.engine, "score.engine": config.score.engine}
    asked |= {
        f"pairs.{name}.generate.engine": config.section(name, "generate").engine for name in config.pairs
    }
    for where, engine in asked.items():
        if engine == "vllm" and importlib.util.find_spec("vllm") is None:
            yield f"{where}: vllm is not installed; pip install 'expoflow[gpu]', or take transformers"


def _trainer_problems(where: str, recipe: Any) -> Iterator[str]:
    """What a training needs and this installation lacks."""
    if recipe.trainer != "trl":
        return
    if not all(importlib.util.find_spec(package) for package in TRAIN_EXTRA):
        way_out = ", or take loop" if recipe.data == "miniature" else ""
        yield f"{where}.trainer: trl is not installed; pip install 'expoflow[train]'{way_out}"
    try:
        launcher = accelerate_config(recipe)
        settings = yaml.safe_load(launcher.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        yield f"{where}.accelerate: cannot read the launcher's settings ({error}); correct the path"
        return
    if settings.get("distributed_type") == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        yield (
            f"{where}.accelerate: {launcher.name} needs DeepSpeed; pip install deepspeed, or set accelerate: single"
        )


def _template_problems(where: str, path: str | None) -> list[str]:
    """A chat template that cannot be read."""
    try:
        if path is not None:
            Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [f"{where}: '{path}' cannot be read ({error}); name a Jinja file"]
    return []


def _adapter_problems(where: str, folder: Path) -> list[str]:
    """What keeps an adapter from being extrapolated, whatever its base."""
    try:
        open_adapter(folder)
    except CheckpointError as error:
        return [f"{where}: {line}" for line in str(error).splitlines()]
    return []


def _folder_problems(where: str, folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"{where}: no folder '{folder}'; correct the path"]
    if is_adapter(folder):
        return _adapter_problems(where, folder)
    if not (folder / "config.json").is_file():
        return [
            f"{where}: '{folder}' is no checkpoint: config.json is missing; name a Hugging Face model folder"
        ]
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        return [
            f"{where}: '{folder}' is no checkpoint: no *.safetensors file; save the model with save_pretrained()"
        ]
    return []
