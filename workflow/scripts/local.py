"""Write the manifest of a user's checkpoint folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.checkpoints import manifests
    from expoflow.config.sources import ModelConfig
    from expoflow.files.records import write_json

    model = ModelConfig.model_validate_json(snakemake.params.model)
    manifest = manifests.manifest(snakemake.wildcards.model, model, Path(model.path))
    write_json(snakemake.output.manifest, manifest)
