"""Score one alpha's responses with the reward model, where there is one."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    import json

    from expoflow.checkpoints import manifests
    from expoflow.config.stages import ScoreConfig
    from expoflow.engines.model import Model
    from expoflow.files.records import read_json
    from expoflow.results import Manifest
    from expoflow.scoring.responses import evaluate, read_responses, write_rewards

    judge = None
    if snakemake.input.reward_model:
        folder = manifests.model_folder(read_json(snakemake.input.reward_model, Manifest))
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
