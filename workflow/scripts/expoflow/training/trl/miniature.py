"""The miniature's data and settings for TRL's trainers: the same as its own loop's."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expoflow.miniature import model, writers
from expoflow.miniature.world import generator, prompts
from expoflow.results import Prompt
from expoflow.training.loop import iterative_dpo, reward, steps
from expoflow.training.trl.rows import Row, example, pair, turns
from expoflow.training.trl.stage import MODEL, TrainerSettings


@dataclass(frozen=True)
class Miniature:
    """The miniature as the source of a recipe; `world` is the seed of its world, `seed` that of the training."""

    recipe: Any
    world: int
    seed: int
    max_tokens = iterative_dpo.MAX_TOKENS
    center = reward.CENTER

    def settings(self, **changed: Any) -> TrainerSettings:
        """Those of the miniature's own loop."""
        values = {
            "epochs": self.recipe.epochs,
            "learning_rate": self.recipe.learning_rate,
            "warmup": importlib.import_module(f"expoflow.training.loop.{self.recipe.recipe}").WARMUP,
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
        """What the recipe's own loop trains on."""
        recipe = self.recipe
        if recipe.recipe == "sft":
            return _examples(writers.sft_examples(recipe.examples, self.world))
        if recipe.recipe == "reward":
            return _pairs(writers.reward_pairs(recipe.examples, self.world))
        if recipe.recipe == "rlhf":
            asked = prompts("train", self.world)
            drawn = generator(self.seed, "rlhf prompts").integers(len(asked), size=recipe.examples)
            return [{"prompt": turns(asked[at])} for at in drawn]
        return _pairs(
            writers.preference_pairs(
                round(recipe.examples * recipe.fraction),
                self.world,
                recipe.prompts,
                recipe.annotator_temperature,
                recipe.length_bias,
                recipe.label_noise,
            )
        )

    def prompts(self) -> list[Prompt]:
        """The train prompts in iterative DPO's order."""
        asked = prompts("train", self.world)
        return [asked[at] for at in generator(self.seed, "iterative dpo prompts").permutation(len(asked))]

    def count(self) -> int:
        """As the recipe says."""
        return self.recipe.examples

    def begin(self, base: Path | None, work: Path, run: Any) -> Path:
        """`base`, or random weights; the reward model has learned the facts before it learns to judge."""
        if base is not None:
            return base
        rewards = self.recipe.recipe == "reward"
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
            lambda: _examples(writers.correct_cores(count, self.world)),
            settings=facts,
        )
        return work / "facts" / MODEL


def _examples(examples: list[writers.Example]) -> list[Row]:
    return [example(turns(each.prompt), each.response) for each in examples]


def _pairs(pairs: list[writers.Pair]) -> list[Row]:
    return [pair(turns(each.prompt), each.chosen, each.rejected) for each in pairs]
