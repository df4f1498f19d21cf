"""Write the tables of the paper's benchmarks in the paper's form."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.benchmarks import published

    published.write(Path(snakemake.input.benchmarks), Path(snakemake.output.tables[0]).parent)
