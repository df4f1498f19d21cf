"""Score one alpha's responses with the reward model, where there is one."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    import json

    from expoflow import store
    from expoflow.config import ScoreConfig
    from expoflow.engines import Model
    from expoflow.evaluate import evaluate, read_responses, write_rewards
    from expoflow.records import Manifest, read_json

    judge = None
    if snakemake.input.reward_model:
        folder = store.model_folder(read_json(snakemake.input.reward_model, Manifest))
        judge = Model(folder=folder, **json.loads(snakemake.params.usage))
    scored = evaluate(
        *read_responses(Path(snakemake.input.prompts), Path(snakemake.input.generations)),
        judge,
        ScoreConfig.model_validate_json(snakemake.params.config),
    )
    pair, alpha, prompts = (snakemake.wildcards[key] for key in ("pair", "alpha", "prompts"))
    write_rewards(Path(snakemake.output.rewards), scored, pair, alpha, prompts)
    if judge:
        say(f"{pair}: alpha {alpha}: reward {sum(row.reward for row in scored) / len(scored):.3f}")
