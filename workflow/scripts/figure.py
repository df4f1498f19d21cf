"""Draw one figure."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow import figures

    plan = figures.Plan.parse(
        snakemake.params.figure,
        snakemake.input.results,
        snakemake.params.paper,
        snakemake.params.paper_rewards,
    )
    figures.draw(plan, outputs=[Path(path) for path in snakemake.output])
