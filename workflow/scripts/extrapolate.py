"""Make the checkpoint of one alpha."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.config.stages import ExtrapolateConfig
    from expoflow.extrapolation.pair import for_sweep
    from expoflow.files.records import read_json
    from expoflow.results import Manifest

    config = ExtrapolateConfig.model_validate_json(snakemake.params.config)
    for_sweep(
        read_json(snakemake.input.sft, Manifest),
        read_json(snakemake.input.aligned, Manifest),
        snakemake.wildcards.alpha,
        Path(snakemake.output.recipe).parent,
        config,
        snakemake.threads,
    )
