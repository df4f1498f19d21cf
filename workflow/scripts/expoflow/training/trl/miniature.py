"""The miniature's data and settings for TRL's trainers, the same as for its own loops."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from expoflow.miniature import model, writers
from expoflow.results import Prompt
from expoflow.training.loop import iterative_dpo, reward, steps
from expoflow.training.trl.rows import Row, example, pair, turns
from expoflow.training.trl.stage import MODEL, TrainerSettings


@dataclass(frozen=True)
class Miniature:
    """The miniature as the source of a recipe.

    `world` is the seed of its world, `seed` that of the training.
    """

    recipe: Any
    world: int
    seed: int
    max_tokens = iterative_dpo.MAX_TOKENS
    center = reward.CENTER

    def settings(self, **changed: Any) -> TrainerSettings:
        """Return the settings of the miniature's own loop."""
        values = {
            "epochs": self.recipe.epochs,
            "learning_rate": self.recipe.learning_rate,
            "warmup": self._loop().WARMUP,
        }
        return TrainerSettings(
            **values | changed,
            batch_size=steps.BATCH,
            per_device=steps.BATCH,
            seed=self.seed,
            max_length=512,
            dtype="float32",
            gradient_checkpointing=False,
            cpu=True,
        )

    def rows(self) -> list[Row]:
        """Return the data that the recipe's own loop trains on."""
        return [_row(each) for each in self._data()]

    def prompts(self) -> list[Prompt]:
        """Return the prompts of a recipe that trains on the model's own responses, in its order."""
        return self._data()

    def _data(self) -> list[Any]:
        """Return examples, pairs or prompts, as in the recipe's own loop."""
        return self._loop().data(self.seed, self.world, **self.recipe.settings())

    def _loop(self) -> ModuleType:
        return importlib.import_module(f"expoflow.training.loop.{self.recipe.recipe}")

    def count(self) -> int:
        """Return the recipe's number of prompts."""
        return self.recipe.examples

    def begin(self, base: Path | None, work: Path, run: Any) -> Path:
        """Return `base`, or a checkpoint with random weights.

        A new reward model first learns the facts, before it learns to judge.
        """
        if base is not None:
            return base
        rewards = self.recipe.SCORES
        start = work / "start"
        lm = model.new(self.seed + 1) if rewards else model.new(self.seed, self.recipe.size)
        model.save(lm, start)
        if not rewards:
            return start
        facts = self.settings(epochs=reward.CORES_EPOCHS, learning_rate=reward.CORES_LEARNING_RATE)
        count = round(self.recipe.examples * reward.CORES)
        run(
            "facts",
            "sft",
            start,
            lambda: [_row(each) for each in writers.correct_cores(count, self.world)],
            settings=facts,
        )
        return work / "facts" / MODEL


def _row(each: writers.Example | writers.Pair | Prompt) -> Row:
    """Return an example, a pair or a prompt as a row for TRL."""
    if isinstance(each, writers.Example):
        return example(turns(each.prompt), each.response)
    if isinstance(each, writers.Pair):
        return pair(turns(each.prompt), each.chosen, each.rejected)
    return {"prompt": turns(each)}
