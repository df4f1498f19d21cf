"""Write the page that shows the results."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.reporting import page

    page.write_page(
        Path(snakemake.output.page),
        json.loads(snakemake.params.figures),
        [Path(path) for path in snakemake.input.tables],
        snakemake.params.note,
    )
