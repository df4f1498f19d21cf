"""Compare expo with aligned on one benchmark, paired by prompt."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.benchmarks import compare
    from expoflow.config import SelectConfig

    compare(
        snakemake.wildcards.pair,
        snakemake.wildcards.benchmark,
        prompts=Path(snakemake.input.prompts),
        expo=Path(snakemake.input.expo),
        aligned=Path(snakemake.input.aligned),
        config=SelectConfig.model_validate_json(snakemake.params.config),
        result=Path(snakemake.output.result),
        say=say,
    )
