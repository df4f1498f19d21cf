"""Train a model as its recipe says."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.config import ModelConfig
    from expoflow.records import Manifest, read_json
    from expoflow.training import train

    needed = {
        role: read_json(files[0], Manifest)
        for role, files in (("base", snakemake.input.base), ("judge", snakemake.input.judge))
        if files
    }
    train(
        snakemake.wildcards.model,
        ModelConfig.model_validate_json(snakemake.params.model),
        needed,
        snakemake.params.seed,
        Path(snakemake.output.manifest),
    )
