"""Join the tables of all pairs."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.paths import RESULTS
    from expoflow.reporting import rehearsal, tables

    tables.write_sweeps(
        RESULTS,
        alphas=[Path(path) for path in snakemake.input.alphas],
        best=[Path(path) for path in snakemake.input.best],
        rewards=[Path(path) for path in snakemake.input.rewards],
        certificates=[Path(path) for path in snakemake.input.certificates],
    )
    rehearsal.mark(map(Path, snakemake.output), snakemake.params.get("rehearsal"))
