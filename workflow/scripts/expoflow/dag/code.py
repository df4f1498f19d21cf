"""Which code a rule's result depends on: the parameter `code` of every rule.

A digest follows the names in a rule's script by itself (`dag.digest`). This module alone lists what
it cannot see: modules that are loaded by name, and modules that change no result.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.config.base import MINIATURE
from expoflow.config.benchmarks import SECTIONS
from expoflow.config.figures import KINDS as FIGURE_KINDS
from expoflow.dag.digest import digest, files, is_module
from expoflow.hosts.task import KINDS
from expoflow.system.installed import workflow_folder

if TYPE_CHECKING:
    from expoflow.config.benchmarks import Benchmark, RewardCheck
    from expoflow.config.sources import ModelConfig, PromptsConfig
    from expoflow.config.theory import TheoryConfig


# Modules that affect how a result is made, stored or reported, but not its content. The values of a
# config are parameters of their own. The bytes of a commit do not depend on the download. A judge's
# verdicts are kept with everything they depend on.
NEUTRAL = frozenset(
    [
        "errors",
        "paths",
        "config",
        "files",
        "results",
        "store",
        "system",
        "hosts",
        "dag",
        "hub",
        "checks",
        "project",
        "cli",
        "checkpoints.manifests",
        "engines.memory",
        "engines.package",
        "benchmarks.judge",
    ]
)
# The tasks that a rule gives to engine hosts (`hosts.task.Task`). A benchmark's section lists its
# own.
TASKS = {
    "generate": ("generate",),
    "score": ("score",),
    "likelihood": ("likelihood",),
    "rewardbench": ("score",),
    "theory": ("theory", "score"),
    "plane": ("theory", "score"),
}
VLLM = "engines.vllm_plugin"  # vLLM's workers load it by name


@cache
def rule(name: str, *also: str) -> str:
    """The digest of a rule's code; `also` are further roots (`dag.digest.reached`)."""
    return _digest((*work(*TASKS.get(name, ())), *also), name)


@cache
def benchmark(name: str) -> str:
    """The digest of the code that runs a benchmark."""
    return _digest((f"{_benchmark(name)}:run", *work(*SECTIONS[name].TASKS)), "benchmark")


@cache
def comparison(name: str) -> str:
    """The digest of the code that compares expo with aligned on a benchmark."""
    return _digest((f"{_benchmark(name)}:run_comparison",), "compare")


@cache
def responses(name: str) -> str:
    """The digest of the code that a benchmark's stored responses and their scores depend on."""
    own = {"generate": ("engines.responses:respond",), "score": ("scoring.responses:evaluate",)}
    tasks = SECTIONS[name].TASKS
    return _digest((*work(*tasks), *(root for task in tasks for root in own.get(task, ()))))


def training(model: "ModelConfig") -> str:
    """The digest of the code that trains a model."""
    recipe = model.train
    if recipe.trainer == "loop":
        return rule("train", f"training.loop.{recipe.recipe}")
    tasks = ("generate", "score") if model.reward_model else ()
    made = (
        "training.trl.miniature",
        *(f"training.loop.{recipe.recipe}:{name}" for name in ("data", "WARMUP")),
    )
    data = made if recipe.data == MINIATURE else ()
    return rule(
        "train", "training.trl.recipe", "training.trl.trainers", "training.onpolicy", *data, *work(*tasks)
    )


def prompts(source: "PromptsConfig") -> str:
    """The digest of the code that makes or reads a prompt set."""
    return rule("prompts", *_miniature("world", source.miniature))


def preferences(source: "RewardCheck") -> str:
    """The digest of the code that makes or reads the preferences that the reward model is checked
    on."""
    return rule("preferences", *_miniature("writers", source.miniature))


def theory(source: "TheoryConfig") -> str:
    """The digest of the code of the rule `theory`."""
    return rule("theory", *_miniature("writers", source.preferences == MINIATURE))


def benchmark_data(name: str, source: "Benchmark") -> str:
    """The digest of the code that gathers the files of a benchmark."""
    return rule("benchmark_data", f"benchmarks.{name}.files:gather", *_miniature(name, source.made()))


@cache
def figure() -> str:
    """The digest of the code that draws figures. `reporting.figures` finds that code by the module
    of a kind."""
    return rule("figure", *sorted({f"reporting.figures.{kind.module}" for kind in FIGURE_KINDS.values()}))


@cache
def page(name: str, answers: bool = True) -> str:
    """The digest of a page: of its rule's code and of the files of all pages.

    If the page shows the `answers` of benchmarks, the code that provides them counts too.
    """
    sections = SECTIONS if answers else {}
    readable = [f"{_benchmark(each)}:readable" for each, section in sections.items() if section.READABLE]
    return f"{rule(name, *readable)} {files('reporting/pages/assets')[:16]}"


def truth() -> str:
    """The digest of the miniature's own judge, because its verdicts are stored under it."""
    return _digest(("miniature.judge",))


def _benchmark(name: str) -> str:
    """The module of a benchmark, as `benchmarks.module` finds it."""
    several = f"benchmarks.{name}.benchmark"
    return several if is_module(several) else f"benchmarks.{name}"


def _miniature(module: str, made: object) -> tuple[str, ...]:
    """A module of the miniature if it makes something; otherwise nothing depends on it."""
    return (f"miniature.{module}",) if made else ()


def work(*tasks: str) -> tuple[str, ...]:
    """The functions that do the work of engine hosts."""
    roots = tuple(KINDS[task].removeprefix("expoflow.") for task in tasks)
    return (*roots, VLLM) if {"generate", "likelihood"} & set(tasks) else roots


def _digest(roots: tuple[str, ...], rule: str = "") -> str:
    return digest(roots, script(rule) if rule else None, NEUTRAL)


def script(rule: str) -> Path:
    """The script of a rule."""
    return workflow_folder() / "workflow" / "scripts" / f"{rule}.py"
