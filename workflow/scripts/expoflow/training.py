"""Training of a model as a recipe says, to a checkpoint folder that appears whole or not at all."""

import importlib
from collections.abc import Callable
from pathlib import Path

from expoflow import store
from expoflow.config import DpoRecipe, ModelConfig
from expoflow.folder import appearing
from expoflow.records import Manifest, write_json


def modules(model: ModelConfig) -> tuple[str, ...]:
    """The modules that a model's training depends on, for its digest."""
    return ("training", f"{model.train.data}.{model.train.recipe}")


def train(
    model: str,
    source: ModelConfig,
    base: Manifest | None,
    seed: int,
    manifest: Path,
    progress: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train `model` into the folder named like it beside `manifest`, which is written last.

    `base` is the manifest of the model that training begins with. Returns the trainer's metrics.
    """
    recipe = source.train
    options = recipe.model_dump(exclude={"recipe", "data", "base"})
    if isinstance(recipe, DpoRecipe):
        options["base"] = store.model_folder(base)
    folder = manifest.parent / model
    trainer = importlib.import_module(f"expoflow.{recipe.data}.{recipe.recipe}")
    with appearing(folder, replace=True) as unfinished:
        metrics = trainer.train(unfinished, seed=seed, progress=progress, **options)
    write_json(manifest, store.manifest(model, source, folder))
    return metrics
