"""Gather the preferences that check the reward model."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

# This local rule is the only job that may have to reach the hub for them.
with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow.config.benchmarks import RewardCheck
    from expoflow.data import preferences
    from expoflow.files.records import write_jsonl

    config = RewardCheck.model_validate_json(snakemake.params.source)
    write_jsonl(Path(snakemake.output.preferences), preferences.gather(config, snakemake.params.seed))
