"""Score responses: by reward, and on a miniature's prompts by the known truth."""

from collections.abc import Sequence
from pathlib import Path

from expoflow.columns import REWARD_COLUMNS
from expoflow.config.stages import ScoreConfig
from expoflow.engines.model import Model
from expoflow.errors import DataError
from expoflow.files.records import read_jsonl, write_csv
from expoflow.miniature import world
from expoflow.results import Generation, Prompt, Scored, read_prompts
from expoflow.scoring.degenerate import fault
from expoflow.scoring.rewards import score_responses


def read_responses(prompts: Path, generations: Path) -> tuple[list[Prompt], list[Generation]]:
    """Return prompts and the responses to them.

    Raises DataError if there are no responses, or if one is duplicated or has an unknown prompt.
    """
    asked, found = read_prompts(prompts), read_jsonl(generations, Generation)
    known = {prompt.prompt_id for prompt in asked}
    if stray := next((row.prompt_id for row in found if row.prompt_id not in known), None):
        raise DataError(
            f"{generations}: has a response to {stray!r}, which is not in {prompts}; delete it and run snakemake again"
        )
    if len({(row.prompt_id, row.sample) for row in found}) < len(found):
        raise DataError(f"{generations}: has a response twice; delete it and run snakemake again")
    if not found:
        raise DataError(f"{generations}: has no response; delete it and run snakemake again")
    return asked, found


def evaluate(
    prompts: Sequence[Prompt],
    generations: Sequence[Generation],
    reward_model: Model | None,
    config: ScoreConfig,
) -> list[Scored]:
    """Score every generation, in order, by `reward_model`; without it there are no rewards."""
    metas = {prompt.prompt_id: prompt.meta for prompt in prompts}
    rewards = (
        score_responses(reward_model, prompts, generations, config)
        if reward_model
        else [None] * len(generations)
    )
    scored = []
    for generation, reward in zip(generations, rewards, strict=True):
        known = {}
        if meta := metas[generation.prompt_id]:
            truth = world.truth(meta, generation.response, generation.finish_reason == "stop")
            known = {"quality": truth.quality, "correct": truth.correct}
        scored.append(Scored(**generation.model_dump(), reward=reward, **known))
    return scored


def write_rewards(path: Path, scored: list[Scored], pair: str, alpha: str, prompts: str) -> None:
    """Write one alpha's rewards.csv."""
    labels = {"pair": pair, "alpha": alpha, "prompts": prompts}
    rows = (
        labels | row.model_dump() | {"degenerate": fault(row.response, row.finish_reason)} for row in scored
    )
    write_csv(path, rows, REWARD_COLUMNS)
