"""Train by TRL: a recipe is a series of `accelerate launch` runs and on-policy labellings."""

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from expoflow.config.sources import ModelConfig
from expoflow.dag.resources import training_gpus
from expoflow.engines.chat import with_system
from expoflow.engines.model import Model
from expoflow.errors import ExpoflowError
from expoflow.files.records import read_jsonl, write_json
from expoflow.hosts.reserved import reserved
from expoflow.results import Prompt
from expoflow.system import child
from expoflow.training import onpolicy
from expoflow.training.trl import stage
from expoflow.training.trl.rows import Row, distinct_prompts, pair, read, turns
from expoflow.training.trl.stage import Stage, TrainerSettings


class Source(Protocol):
    """Where a recipe's settings and data come from: a dataset's files, or the miniature."""

    max_tokens: int
    """Most tokens of a sampled response."""
    center: float | None
    """Weight of the squared sum of a pair's rewards in the reward model's loss."""

    def settings(self) -> TrainerSettings:
        """Return the trainer's settings."""

    def rows(self) -> list[Row]:
        """Return the data of SFT, DPO, the reward model or RLHF."""

    def prompts(self) -> list[Prompt]:
        """Return distinct prompts in the order in which iterative DPO takes them."""

    def count(self) -> int:
        """Return how many prompts iterative DPO takes in all."""

    def begin(self, base: Path | None, work: Path, run: "Run") -> Path:
        """Return the checkpoint that training starts from, made in `work` if there is none."""


Run = Callable[..., dict[str, float]]


@dataclass(frozen=True)
class Files:
    """A dataset's files as the source of a recipe."""

    recipe: Any
    files: list[Path]
    center = None

    @property
    def max_tokens(self) -> int:
        """The recipe's limit."""
        return self.recipe.max_tokens

    def settings(self) -> TrainerSettings:
        """Return the recipe's settings."""
        return TrainerSettings(
            **{name: getattr(self.recipe, name) for name in TrainerSettings.model_fields if name != "cpu"}
        )

    def rows(self) -> list[Row]:
        """Return the rows that the recipe's fraction keeps."""
        rows = read(self.recipe.recipe, self.files, self.recipe.fraction)
        if hasattr(self.recipe, "reward_model"):  # the responses are the model's own
            return [{"prompt": turns(prompt)} for prompt in distinct_prompts(rows)]
        return rows

    def prompts(self) -> list[Prompt]:
        """Return the distinct prompts, shuffled."""
        prompts = distinct_prompts(self.rows())
        random.Random(self.recipe.seed).shuffle(prompts)
        return prompts

    def count(self) -> int:
        """Return the number of distinct prompts: each is used once."""
        return len(self.prompts())

    def begin(self, base: Path | None, work: Path, run: Run) -> Path:
        """Return the model in `from`."""
        return base


@dataclass(frozen=True)
class Training:
    """A recipe's training in the folder `work`, which keeps an interrupted training's stages."""

    source: ModelConfig
    data: Source
    folders: Mapping[str, Path]
    usages: Mapping[str, Mapping[str, Any]]
    work: Path
    accelerate: Path
    threads: int
    progress: Callable[[str], None]

    def run(self) -> tuple[Path, dict[str, float]]:
        """Train; return the checkpoint's folder and the last stage's metrics.

        In a local run, the training reserves its GPUs. Raises ExpoflowError if there are too few.
        """
        with reserved(training_gpus(self.source.train), str(self.accelerate)):
            return self._run()

    def _run(self) -> tuple[Path, dict[str, float]]:
        recipe = self.source.train
        start = self.data.begin(self.folders.get("base"), self.work, self.stage)
        if hasattr(recipe, "iterations"):
            return self.iterate(start)
        more: dict[str, Any] = {"center": self.data.center} if recipe.SCORES else {}
        more |= {name: getattr(recipe, name) for name in ("beta", "samples") if hasattr(recipe, name)}
        if self.source.reward_model:
            template = self.usages.get("reward_model", {}).get("chat_template")
            more |= {"reward_model": self.folders["reward_model"], "reward_model_chat_template": template}
            more |= {"max_tokens": self.data.max_tokens}
        metrics = self.stage(recipe.recipe, recipe.recipe, start, self.data.rows, **more)
        return self.work / recipe.recipe / stage.MODEL, metrics

    def stage(
        self, name: str, trainer: str, base: Path, rows: Callable[[], list[Row]], **more: Any
    ) -> dict[str, float]:
        """Run one stage in its folder `name`, unless it is done; return its metrics."""
        usage = self.usages.get("base", {})
        given = {key: usage[key] for key in ("chat_template", "date", "trust_remote_code") if key in usage}
        values = {"settings": self.data.settings(), **given, **more}
        task = Stage(trainer=trainer, folder=self.work / name, base=base, **values)

        def shown() -> list[Row]:
            system = usage.get("system", "keep")
            return [{column: with_system(each, system) for column, each in row.items()} for row in rows()]

        metrics = stage.run(task, shown, self.accelerate, self.threads)
        self.progress(f"{name}: {metrics['steps']} steps, loss {metrics['loss']:.4f}")
        return metrics

    def iterate(self, policy: Path) -> tuple[Path, dict[str, float]]:
        """Run rounds of DPO on pairs of the last round's model, which is also the reference."""
        recipe = self.source.train
        prompts = self.data.prompts()
        shares = onpolicy.shares(prompts, self.data.count(), recipe.iterations, range(len(prompts)))
        total = 0
        for number, asked in enumerate(shares, start=1):
            name = f"round-{number}"
            labelled = self.work / name / "pairs.jsonl"
            if not labelled.is_file():
                self.label(policy, asked, self.data.settings().seed + number * recipe.samples, labelled)

            def rows(labelled: Path = labelled) -> list[Row]:
                preferences = read_jsonl(labelled, onpolicy.Preference)
                return [pair(turns(each.prompt), each.chosen, each.rejected) for each in preferences]

            metrics = self.stage(name, "dpo", policy, rows, beta=recipe.beta)
            total += int(metrics["steps"])
            policy = self.work / name / stage.MODEL
        return policy, metrics | {"steps": total}

    def label(self, policy: Path, prompts: list[Prompt], seed: int, target: Path) -> None:
        """Write pairs in a separate process, which leaves its memory to the trainer afterwards."""
        task = onpolicy.Labelling(
            policy=Model.used(self.source.base, policy, self.usages.get("base", {})),
            reward_model=Model.used(
                self.source.reward_model, self.folders["reward_model"], self.usages.get("reward_model", {})
            ),
            prompts=prompts,
            samples=self.source.train.samples,
            max_tokens=self.data.max_tokens,
            seed=seed,
            target=target,
        )
        path = target.with_name("labelling.json")
        write_json(path, task)
        if child.run([sys.executable, "-m", "expoflow.training.onpolicy", str(path)], EXPOFLOW_HOST="off"):
            raise ExpoflowError(f"{target}: labelling failed; see the reason above")
