"""Write the tables of Appendices E and F, and the paper's numbers beside this run's."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.reporting import appendices, rehearsal

    appendices.write_appendices(
        json.loads(snakemake.params.pairs),
        alphas=[Path(path) for path in snakemake.input.alphas],
        benchmarks=[Path(path) for path in snakemake.input.benchmarks],
        paper=json.loads(snakemake.params.paper),
        note=snakemake.params.note,
        confidence=json.loads(snakemake.params.confidence),
        outputs=[Path(path) for path in snakemake.output],
    )
    rehearsal.mark(map(Path, snakemake.output), snakemake.params.get("rehearsal"))
