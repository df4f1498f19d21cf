"""Draw one figure."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.reporting import figures, rehearsal
    from expoflow.reporting.figures.style import Drawing

    drawing = Drawing.parse(
        snakemake.params.figure,
        snakemake.input.results,
        snakemake.params.paper,
        snakemake.params.paper_rewards,
    )
    mark = rehearsal.words(snakemake.params.get("rehearsal"))
    figures.draw(drawing, outputs=[Path(path) for path in snakemake.output], mark=mark)
