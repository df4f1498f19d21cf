"""Draw one figure."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow import figures

    figures.draw(
        snakemake.wildcards.figure,
        alphas=Path(snakemake.input.alphas),
        generations=[Path(path) for path in snakemake.input.generations],
        outputs=[Path(path) for path in snakemake.output],
    )
