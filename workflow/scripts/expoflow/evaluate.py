"""Responses to scored responses: the reward, and on a miniature's prompts what is really true."""

from collections.abc import Sequence
from pathlib import Path

from expoflow import scoring
from expoflow.config import ScoreConfig
from expoflow.engines import Model
from expoflow.miniature import world
from expoflow.records import Generation, Prompt, Scored, write_csv

REWARD_COLUMNS = (
    "pair",
    "alpha",
    "prompts",
    "prompt_id",
    "sample",
    "reward",
    "response_tokens",
    "finish_reason",
    "engine",
    "quality",
    "correct",
)


def evaluate(
    prompts: Sequence[Prompt], generations: Sequence[Generation], judge: Model | None, config: ScoreConfig
) -> list[Scored]:
    """Score every generation, in order, by the reward model `judge`; without one there are no rewards."""
    metas = {prompt.prompt_id: prompt.meta for prompt in prompts}
    rewards = scoring.rewards(judge, prompts, generations, config) if judge else [None] * len(generations)
    scored = []
    for generation, reward in zip(generations, rewards, strict=True):
        truth = {}
        if meta := metas[generation.prompt_id]:
            judgement = world.judge(meta, generation.response, generation.finish_reason == "stop")
            truth = {"quality": judgement.quality, "correct": judgement.correct}
        scored.append(Scored(**generation.model_dump(), reward=reward, **truth))
    return scored


def write_rewards(path: Path, scored: list[Scored], pair: str, alpha: str, prompts: str) -> None:
    """Write one alpha's rewards.csv."""
    labels = {"pair": pair, "alpha": alpha, "prompts": prompts}
    write_csv(path, (labels | row.model_dump() for row in scored), REWARD_COLUMNS)
