"""Responses to scored responses: the reward, and on a miniature's prompts what is really true."""

from collections.abc import Sequence
from pathlib import Path

from expoflow.records import Generation, Prompt, Scored


def evaluate(
    prompts: Sequence[Prompt], generations: Sequence[Generation], reward_model: Path
) -> list[Scored]:
    """Score every generation, in order, by the reward model in the folder `reward_model`."""
    from expoflow.miniature.world import judge
    from expoflow.scoring import RewardModel

    metas = {prompt.prompt_id: prompt.meta for prompt in prompts}
    rewards = RewardModel(reward_model).score(prompts, generations)
    scored = []
    for generation, reward in zip(generations, rewards, strict=True):
        truth = {}
        if meta := metas[generation.prompt_id]:
            judgement = judge(meta, generation.response, generation.finish_reason == "stop")
            truth = {"quality": judgement.quality, "correct": judgement.correct}
        scored.append(Scored(**generation.model_dump(), reward=reward, **truth))
    return scored
