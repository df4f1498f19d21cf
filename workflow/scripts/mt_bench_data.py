"""Gather the questions, judge prompts and reference answers of MT-Bench."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

# The one job that may have to reach the hub for them: it is a local rule.
with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow.benchmarks.mt_bench import files as mt_bench_files
    from expoflow.config.benchmarks import MtBenchBenchmark
    from expoflow.files.records import write_json

    config = MtBenchBenchmark.model_validate_json(snakemake.params.source)
    write_json(Path(snakemake.output.data), mt_bench_files.gather(config, snakemake.params.seed))
