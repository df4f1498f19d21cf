"""Write the page that shows the results."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.reporting.pages.provenance import Told
    from expoflow.reporting.pages.report import write_report

    params = snakemake.params
    told = Told(
        figures=json.loads(params.figures),
        tables=[Path(path) for path in snakemake.input.tables],
        note=params.note,
        pairs=json.loads(params.pairs),
        reward_model=params.reward_model,
        confidence=json.loads(params.confidence),
        config=snakemake.config,
        again=os.environ.get("EXPOFLOW_AGAIN", ""),
    )
    write_report(Path(snakemake.output.page), told)
