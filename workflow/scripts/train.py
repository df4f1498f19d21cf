"""Train a model as its recipe says."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.config import Config
    from expoflow.files.records import read_json
    from expoflow.results import Manifest
    from expoflow.system.installed import accelerate_config
    from expoflow.training.train import Launch, train

    given = {role: read_json(files[0], Manifest) for role, files in snakemake.input.items() if files}
    source = Config.model_validate(snakemake.config).models[snakemake.wildcards.model]
    data = given.pop("data", None)
    train(
        snakemake.wildcards.model,
        source,
        given,
        snakemake.params.seed,
        Path(snakemake.output.manifest),
        data=data,
        usages={role: json.loads(usage) for role, usage in snakemake.params.usages.items()},
        launch=Launch(accelerate_config(source.train), snakemake.threads),
        code=snakemake.params.code,
    )
