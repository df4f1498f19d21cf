"""Fetch a file of AlpacaEval's dataset on the hub, or make the miniature's."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

# The one job that may have to reach the hub for it: it is a local rule.
with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow.benchmarks.alpaca_eval import files as alpaca_eval_files
    from expoflow.config.benchmarks import AlpacaEvalBenchmark

    config = AlpacaEvalBenchmark.model_validate_json(snakemake.params.source)
    alpaca_eval_files.gather(config, Path(snakemake.output.file), snakemake.params.seed)
