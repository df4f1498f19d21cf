"""Bring a file that a benchmark reads: fetch it, make it, or gather it from the user's."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

# The one job that may have to reach the hub for it: it is a local rule.
with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow import benchmarks
    from expoflow.config.benchmarks import SECTIONS

    name = snakemake.rule.removesuffix("_data")
    section = SECTIONS[name].model_validate_json(snakemake.params.source)
    gather = benchmarks.light(name, "gather")
    gather(section, snakemake.params.seed, Path(snakemake.output[0]))
