"""Generate one alpha's responses."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config.stages import GenerateConfig
    from expoflow.engines.responses import respond
    from expoflow.files.records import read_json
    from expoflow.results import Manifest

    respond(
        Path(snakemake.input.recipe),
        read_json(snakemake.input.sft, Manifest),
        read_json(snakemake.input.aligned, Manifest),
        Path(snakemake.input.prompts),
        Path(snakemake.output.generations),
        GenerateConfig.model_validate_json(snakemake.params.config),
        snakemake.params.usage,
        snakemake.params.code,
        say,
    )
