"""Write one table of a pair's sweep: every prompt, with its responses at every alpha."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.scoring.answers import write_answers

    write_answers(
        Path(snakemake.output.answers),
        Path(snakemake.input.prompts),
        [Path(path) for path in snakemake.input.generations],
        [Path(path) for path in snakemake.input.rewards],
    )
