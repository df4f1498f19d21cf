"""Find, fetch or make the datasets of lm-eval's tasks."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

# The one job that may have to reach the hub for them: it is a local rule.
with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow.benchmarks.open_llm import files as open_llm_files
    from expoflow.config.benchmarks import OpenLlmBenchmark

    config = OpenLlmBenchmark.model_validate_json(snakemake.params.source)
    open_llm_files.prepare(config, snakemake.params.seed, Path(snakemake.output.data))
