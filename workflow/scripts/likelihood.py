"""Score one alpha's responses by their likelihood under the pair's own models."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.engines import responses
    from expoflow.extrapolation.recipe import ExtrapolationRecipe
    from expoflow.files.records import read_json
    from expoflow.results import Manifest
    from expoflow.scoring import likelihood
    from expoflow.scoring.responses import read_responses

    parents = [read_json(snakemake.input[name], Manifest) for name in ("sft", "aligned")]
    recipes = zip(snakemake.params.models, map(Path, snakemake.input.recipes), strict=True)
    models = {
        name: responses.model(
            read_json(path, ExtrapolationRecipe), path.parent, *parents, snakemake.params.usage
        )
        for name, path in recipes
    }
    prompts, generations = read_responses(Path(snakemake.input.prompts), Path(snakemake.input.generations))
    rows = likelihood.likelihoods(models, prompts, generations, snakemake.params.engine)
    labels = {key: snakemake.wildcards[key] for key in ("pair", "alpha", "prompts")}
    likelihood.write_likelihoods(Path(snakemake.output.likelihoods), generations, rows, labels)
    tokens = sum(row["tokens"] for row in rows) or 1
    nll = -sum(row["logp_aligned"] for row in rows) / tokens
    say(f"{labels['pair']}: alpha {labels['alpha']}: {nll:.3f} nats per token under the aligned model")
