"""Training of a model as a recipe says, to a checkpoint folder that appears whole or not at all."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from expoflow import store
from expoflow.config import ModelConfig
from expoflow.folder import appearing
from expoflow.records import Manifest, write_json


def modules(model: ModelConfig) -> tuple[str, ...]:
    """The modules that a model's training depends on, for its digest."""
    return ("training", f"{model.train.data}.{model.train.recipe}")


def train(
    model: str,
    source: ModelConfig,
    needed: Mapping[str, Manifest],
    seed: int,
    manifest: Path,
    progress: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train `model` into the folder named like it beside `manifest`, which is written last.

    `needed` has the manifests of the models that the recipe names: `base`, `judge`. Returns the trainer's
    metrics.
    """
    recipe = source.train
    options = recipe.model_dump(exclude={"recipe", "data", "trainer", "base", "reward_model", "seed"})
    options |= {role: store.model_folder(each) for role, each in needed.items()}
    options |= {"world": seed, "seed": seed if recipe.seed is None else recipe.seed}
    folder = manifest.parent / model
    trainer = importlib.import_module(f"expoflow.{recipe.data}.{recipe.recipe}")
    with appearing(folder, replace=True) as unfinished:
        metrics = trainer.train(unfinished, progress=progress, **options)
    write_json(manifest, store.manifest(model, source, folder))
    return metrics
