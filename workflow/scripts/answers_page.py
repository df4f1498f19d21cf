"""Write the page of a pair's answers."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.reporting.pages import answers

    inputs = snakemake.input
    answers.write(
        Path(snakemake.output.page),
        Path(inputs.answers),
        Path(inputs.best),
        Path(inputs.certificate),
        {name: [Path(path) for path in inputs[f"{name}_rows"]] for name in snakemake.params.benchmarks},
        {
            name: {key: Path(inputs[f"{name}_{key}"]) for key in keys}
            for name, keys in snakemake.params.benchmarks.items()
        },
        snakemake.params.models,
        snakemake.params.judge,
    )
