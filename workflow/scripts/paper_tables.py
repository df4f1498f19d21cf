"""Write the tables of the paper's benchmarks in the paper's form."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.reporting import paper_tables, rehearsal

    paper_tables.write_paper_tables(Path(snakemake.input.benchmarks), Path(snakemake.output.tables[0]).parent)
    rehearsal.mark(map(Path, snakemake.output), snakemake.params.get("rehearsal"))
