"""Write the pair's checkpoint at the chosen alpha, whole, to be published."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config.stages import ExtrapolateConfig
    from expoflow.extrapolation.model_card import model_card
    from expoflow.extrapolation.pair import export
    from expoflow.files.records import read_json
    from expoflow.paths import RESULTS
    from expoflow.results import Best, Manifest

    best = read_json(snakemake.input.best, Best)
    folder = Path(snakemake.output.recipe).parent
    written = export(
        read_json(snakemake.input.sft, Manifest),
        read_json(snakemake.input.aligned, Manifest),
        best.alpha,
        folder,
        ExtrapolateConfig.model_validate_json(snakemake.params.config),
        snakemake.params.code,
        snakemake.threads,
        partial(model_card, certificate=RESULTS.certificate(best.pair)),
    )
    say(f"{best.pair}: alpha {best.alpha} {'written to' if written else 'is already in'} {folder}")
