"""Bring a model from the Hugging Face hub into its cache and make its manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow import hub
    from expoflow.config import ModelConfig
    from expoflow.records import write_json

    model, target = snakemake.wildcards.model, Path(snakemake.output.manifest)
    source = ModelConfig.model_validate_json(snakemake.params.model)
    write_json(target, hub.download(model, source, target.with_name(f".{model}.commit.json"), say))
