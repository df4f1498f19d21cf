"""Responses of one checkpoint of a sweep to a prompt set, for the rule `generate`."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from expoflow import store
from expoflow.checkpoints import manifests
from expoflow.config.stages import GenerateConfig
from expoflow.engines import unfinished
from expoflow.engines.generate import generate
from expoflow.engines.model import Model, chosen
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.recipe import ExtrapolationRecipe
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.files import hashing
from expoflow.files.records import read_json, write_jsonl
from expoflow.results import Generation, Manifest, read_prompts


def model(
    recipe: ExtrapolationRecipe, folder: Path, sft: Manifest, aligned: Manifest, usage: str = "{}"
) -> Model:
    """Return what an engine runs for the checkpoint of `recipe` in `folder`.

    `usage` is as `Config.usage` returns it.
    """
    streamed = None
    if recipe.weights != "stored":
        streamed = Streamed(
            sft=manifests.model_folder(sft),
            aligned=manifests.model_folder(aligned),
            alpha=recipe.alpha,
            options=Options.of(dict(recipe)),
        )
    return Model.used(aligned.model, folder, json.loads(usage), streamed)


def respond(
    recipe: Path,
    sft: Manifest,
    aligned: Manifest,
    prompts: Path,
    output: Path,
    config: GenerateConfig,
    usage: str,
    code: str,
    say: Callable[[str], None] = print,
) -> None:
    """Write the responses of the checkpoint of `recipe` to `prompts`.

    `code` is the digest of the code that makes them. Responses of alpha 0 and -1 are kept in the
    store by content, so pairs with a common parent share them. `say` gets a warning if most of the
    aligned model's responses are unfinished.
    """
    made, asked = read_json(recipe, ExtrapolationRecipe), read_prompts(prompts)
    key = {
        "model": made.content_digest(),
        "usage": usage,
        "prompts": hashlib.sha256(prompts.read_bytes()).hexdigest(),
        "generate": config.model_dump(exclude={"prompts", "engine"}),
        "engine": chosen(config.engine),
        "code": code,
    }
    part = output.with_name(f".{output.name}.part")

    def make() -> list[Generation]:
        runs = model(made, recipe.parent, sft, aligned, usage)
        return generate(runs, asked, config, part, hashing.json_digest(key), say)

    rows = store.cached("generations", key, make, Generation)[0] if made.weights == "parents" else make()
    write_jsonl(output, rows)
    part.unlink(missing_ok=True)
    cut_off = sum(row.finish_reason == "length" for row in rows) / max(len(rows), 1)
    if made.alpha == 0 and cut_off > unfinished.MOSTLY:
        say(f"warning: {output}: {unfinished.words(cut_off)}")
