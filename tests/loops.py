"""The miniature's training loops and preference pairs, by the config's defaults but for what a test changes."""

from pathlib import Path
from types import ModuleType
from typing import Any

from expoflow.config.recipes import MINIATURE_RECIPES
from expoflow.miniature import writers


def run_loop(loop: ModuleType, out: Path, **changed: Any) -> dict[str, float]:
    """`loop.train` with the defaults of the loop's recipe."""
    recipe = MINIATURE_RECIPES[loop.__name__.rpartition(".")[2]]
    return loop.train(out, **recipe.model_construct().settings() | changed)


def preference_pairs(count: int, seed: int, split: str = "train", **changed: Any) -> list[writers.Pair]:
    """`writers.preference_pairs` with the annotator of the recipe dpo."""
    dpo = MINIATURE_RECIPES["dpo"].model_construct()
    annotator = {
        "temperature": dpo.annotator_temperature,
        "length_bias": dpo.length_bias,
        "label_noise": dpo.label_noise,
    }
    return writers.preference_pairs(count, seed, split, **annotator | changed)
