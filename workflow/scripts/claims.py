"""Measure the paper's claims on a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.claims import tables
    from expoflow.config import Config
    from expoflow.paths import RESULTS
    from expoflow.reporting import rehearsal

    tables.write_claims(
        Config.model_validate(snakemake.config),
        RESULTS,
        claims=Path(snakemake.output.claims),
        regret=Path(snakemake.output.regrets),
        styles=Path(snakemake.output.styles),
    )
    rehearsal.mark(map(Path, snakemake.output), snakemake.params.get("rehearsal"))
