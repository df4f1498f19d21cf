"""Provide a file that a benchmark reads: fetch it, make it, or gather it from the user's files."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

# This local rule is the only job that may have to reach the hub for the file.
with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow import benchmarks
    from expoflow.config.benchmarks import SECTIONS

    name = snakemake.rule.removesuffix("_data")
    section = SECTIONS[name].model_validate_json(snakemake.params.source)
    gather = benchmarks.light(name, "gather")
    gather(section, snakemake.params.seed, Path(snakemake.output[0]))
