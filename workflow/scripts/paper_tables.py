"""Write the tables of the paper's benchmarks, in the paper's form."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.reporting import paper_tables, rehearsal

    outputs = [Path(path) for path in snakemake.output]
    paper_tables.write_paper_tables(
        Path(snakemake.input.benchmarks),
        outputs[0].parent,
        json.loads(snakemake.params.confidence),
        {path.stem for path in outputs},
    )
    rehearsal.mark(outputs, snakemake.params.get("rehearsal"))
