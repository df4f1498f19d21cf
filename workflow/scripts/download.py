"""Download a model from the Hugging Face hub into its cache, and write its manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow.config.sources import ModelConfig
    from expoflow.files.records import write_json
    from expoflow.hub import download

    model, target = snakemake.wildcards.model, Path(snakemake.output.manifest)
    source = ModelConfig.model_validate_json(snakemake.params.model)
    write_json(target, download.download(model, source, target.with_name(f".{model}.commit.json"), say))
