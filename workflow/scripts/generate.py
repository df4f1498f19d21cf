"""Generate one alpha's responses."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow import engines
    from expoflow.config import GenerateConfig
    from expoflow.pair import weights
    from expoflow.recipe import Recipe
    from expoflow.records import Manifest, Prompt, read_json, read_jsonl, write_jsonl

    recipe = read_json(snakemake.input.recipe, Recipe)
    parents = [read_json(path, Manifest) for path in (snakemake.input.sft, snakemake.input.aligned)]
    config = GenerateConfig.model_validate_json(snakemake.params.config)
    folder = Path(snakemake.input.recipe).parent
    engine = engines.load(folder, config, weights(recipe, *parents))
    generations = engines.respond(engine, read_jsonl(snakemake.input.prompts, Prompt), config)
    write_jsonl(snakemake.output.generations, generations)
