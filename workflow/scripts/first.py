"""Write the first entries of a set, for a rehearsal."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.data.first import write_first

    write_first(Path(snakemake.input.whole), Path(snakemake.output.first), snakemake.params.limit)
