"""Benchmark one variant of a pair."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow import benchmarks
    from expoflow.benchmarks.job import Job
    from expoflow.config import Config
    from expoflow.paths import of_benchmark

    # The params hold what the result depends on. Costs, keys and timeouts are only in the config.
    job = Job(
        pair=snakemake.wildcards.pair,
        variant=snakemake.wildcards.variant,
        benchmark=of_benchmark(Path(snakemake.output.result))[2],
        config=Config.model_validate(snakemake.config),
        # a named list has one file or none
        inputs={
            name: Path(*[file] if isinstance(file, str) else file)
            for name, file in snakemake.input.items()
            if file
        },
        usage=snakemake.params.usage,
        code=snakemake.params.responses,
        result=Path(snakemake.output.result),
        rows=Path(snakemake.output.rows),
        say=say,
    )
    benchmarks.module(job.benchmark).run(job)
