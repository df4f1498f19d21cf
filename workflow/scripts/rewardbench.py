"""Check how often the reward model prefers the better response."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.benchmarks import rewardbench
    from expoflow.config.stages import ScoreConfig, SelectConfig

    rewardbench.check(
        Path(snakemake.input.model),
        Path(snakemake.input.preferences),
        usage=snakemake.params.usage,
        score_config=ScoreConfig.model_validate_json(snakemake.params.score),
        select=SelectConfig.model_validate_json(snakemake.params.select),
        source=snakemake.params.source,
        result=Path(snakemake.output.result),
        rows=Path(snakemake.output.rows),
        say=say,
    )
