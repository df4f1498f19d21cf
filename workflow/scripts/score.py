"""Score one alpha's responses with the reward model, if there is one."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config.stages import ScoreConfig
    from expoflow.scoring.responses import evaluate, read_responses, write_rewards
    from expoflow.scoring.rewards import reward_model

    manifest = snakemake.input.reward_model  # empty without one
    scorer = reward_model(manifest, snakemake.params.usage) if manifest else None
    scored = evaluate(
        *read_responses(Path(snakemake.input.prompts), Path(snakemake.input.generations)),
        scorer,
        ScoreConfig.model_validate_json(snakemake.params.config),
    )
    pair, alpha, prompts = (snakemake.wildcards[key] for key in ("pair", "alpha", "prompts"))
    write_rewards(Path(snakemake.output.rewards), scored, pair, alpha, prompts)
    if scorer:
        say(f"{pair}: alpha {alpha}: reward {sum(row.reward for row in scored) / len(scored):.3f}")
