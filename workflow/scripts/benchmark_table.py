"""Join the benchmark results of all pairs."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.reporting import rehearsal, tables

    tables.write_benchmarks(
        Path(snakemake.output.benchmarks), [Path(path) for path in snakemake.input.benchmarks]
    )
    rehearsal.mark(map(Path, snakemake.output), snakemake.params.get("rehearsal"))
