"""Write the pair's whole checkpoint at the chosen alpha, ready to publish."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config.stages import ExtrapolateConfig
    from expoflow.extrapolation.model_card import model_card
    from expoflow.extrapolation.pair import export
    from expoflow.extrapolation.recipe import ExtrapolationRecipe
    from expoflow.files.atomic import write_text
    from expoflow.files.records import read_json, write_json
    from expoflow.paths import RESULTS
    from expoflow.reporting import rehearsal
    from expoflow.results import Best, Manifest

    best = read_json(snakemake.input.best, Best)
    path = Path(snakemake.output.recipe)
    written = export(
        read_json(snakemake.input.sft, Manifest),
        read_json(snakemake.input.aligned, Manifest),
        best.alpha,
        path.parent,
        ExtrapolateConfig.model_validate_json(snakemake.params.config),
        snakemake.params.code,
        snakemake.threads,
    )
    recipe = read_json(path, ExtrapolationRecipe)
    if said := rehearsal.words(snakemake.params.get("rehearsal")):
        recipe = recipe.model_copy(update={"warnings": (*recipe.warnings, said)})
        write_json(path, recipe)
    write_text(path.with_name("README.md"), model_card(recipe, RESULTS.certificate(best.pair)))
    say(f"{best.pair}: alpha {best.alpha} {'written to' if written else 'is already in'} {path.parent}")
