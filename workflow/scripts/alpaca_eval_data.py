"""Fetch a file of AlpacaEval's dataset on the hub, or make the miniature's."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

# The one job that may have to reach the hub for it: it is a local rule.
with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow.benchmarks import alpaca_eval_data
    from expoflow.config import AlpacaEvalBenchmark

    config = AlpacaEvalBenchmark.model_validate_json(snakemake.params.source)
    alpaca_eval_data.gather(config, Path(snakemake.output.file), snakemake.params.seed)
