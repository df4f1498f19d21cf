"""Compare expo with aligned on one benchmark, paired by item."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow import benchmarks
    from expoflow.benchmarks.comparison import Comparison
    from expoflow.config import Config

    comparison = Comparison(
        pair=snakemake.wildcards.pair,
        benchmark=snakemake.wildcards.benchmark,
        config=Config.model_validate(snakemake.config),
        inputs={name: Path(path) for name, path in snakemake.input.items()},
        result=Path(snakemake.output.result),
        say=say,
    )
    benchmarks.module(comparison.benchmark).run_comparison(comparison)
