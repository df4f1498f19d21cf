"""Choose a pair's alpha."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config.stages import SelectConfig
    from expoflow.paths import of_alpha
    from expoflow.reporting.words import best_line
    from expoflow.selection import select, tables
    from expoflow.selection.criteria import CRITERIA

    pair = snakemake.wildcards.pair
    alphas = [of_alpha(Path(path)) for path in snakemake.input.rewards]
    recipes = dict(zip(alphas, snakemake.input.recipes, strict=True))
    config = SelectConfig.model_validate_json(snakemake.params.config)
    effective = {alpha: tables.read_effective_alpha(path, alpha) for alpha, path in recipes.items()}
    rewards, likelihoods = tables.read_swept(pair, snakemake.input.rewards, snakemake.input.likelihoods)
    rows, best = select.select(
        pair,
        rewards,
        effective,
        config,
        snakemake.params.seed,
        likelihoods,
    )
    best = best.model_copy(update={"labelled_by": snakemake.params.labelled_by})
    if CRITERIA[config.by].rewarded and snakemake.params.reward_model in best.labelled_by:
        say(
            f"warning: {best.pair}: {snakemake.params.reward_model} labelled the training of the aligned model and chooses alpha "
            "too; use an independent reward model, which does not share what the model learned to please"
        )
    select.write_choice(rows, best, Path(snakemake.output.alphas), Path(snakemake.output.best))
    say(best_line(best, {row["alpha"]: row for row in rows}["0"].get("reward")))
