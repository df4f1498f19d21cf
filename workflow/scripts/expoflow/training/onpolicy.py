"""On-policy preferences: the best and the worst of a model's own responses by a reward model."""

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from expoflow.config.stages import GenerateConfig, ScoreConfig
from expoflow.engines import generate
from expoflow.engines.model import Model
from expoflow.errors import DataError, ExpoflowError
from expoflow.files.records import Record, read_json, write_jsonl
from expoflow.results import Generation, Prompt
from expoflow.scoring.rewards import score_responses
from expoflow.system import child


class Preference(Record):
    """A prompt with the preferred response and the other one."""

    prompt: Prompt
    chosen: str
    rejected: str


def preferences(
    policy: Model,
    reward_model: Model,
    prompts: Sequence[Prompt],
    *,
    samples: int,
    max_tokens: int,
    seed: int,
    part: Path,
) -> list[Preference]:
    """Return at most one pair per prompt, in order, from `samples` responses at temperature 1.

    Responses that did not end by themselves are ignored. A prompt is left out if fewer than two
    different rewards remain. `part` keeps the responses while they are made. Raises DataError if no
    pair remains.
    """
    sampling = GenerateConfig(
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        max_tokens=max_tokens,
        samples=samples,
        seed=seed,
        too_long="skip",
    )
    generations = generate.generate(policy, prompts, sampling, part, f"{policy.folder} {seed}")
    finished = [each for each in generations if each.finish_reason == "stop"]
    rewards = score_responses(reward_model, prompts, finished, ScoreConfig())
    answers: dict[str, list[tuple[float, Generation]]] = {}
    for reward, each in zip(rewards, finished, strict=True):
        answers.setdefault(each.prompt_id, []).append((reward, each))
    pairs = []
    for prompt in prompts:
        ranked = sorted(answers.get(prompt.prompt_id, ()), key=lambda answer: answer[0])
        if ranked and ranked[0][0] < ranked[-1][0]:
            pairs.append(
                Preference(prompt=prompt, chosen=ranked[-1][1].response, rejected=ranked[0][1].response)
            )
    part.unlink(missing_ok=True)
    if not pairs:
        raise DataError(
            f"'{policy.folder}': none of {len(prompts)} prompts has two finished responses of different reward; "
            "raise samples, or begin with a model that ends its responses"
        )
    return pairs


def shares(
    prompts: Sequence[Prompt], count: int, iterations: int, order: Sequence[int]
) -> list[list[Prompt]]:
    """Return the prompts of every iteration.

    Together they are `count` prompts, taken in the `order` of their indices, which is repeated as
    needed. Raises DataError if one iteration would have a prompt twice.
    """
    bounds = [round(count * at / iterations) for at in range(iterations + 1)]
    if max(stop - start for start, stop in pairwise(bounds)) > len(prompts):
        raise DataError(
            f"{count} prompts in {iterations} iterations: one iteration would need more than the {len(prompts)} there are; "
            "lower examples, or raise iterations"
        )
    return [
        [prompts[order[at % len(prompts)]] for at in range(start, stop)] for start, stop in pairwise(bounds)
    ]


class Labelling(Record):
    """The arguments of `preferences`, and the file for the pairs."""

    policy: Model
    reward_model: Model
    prompts: list[Prompt]
    samples: int
    max_tokens: int
    seed: int
    target: Path


def main(path: Path) -> None:
    """Write the pairs that a `Labelling` file describes; a rerun keeps finished responses."""
    task = read_json(path, Labelling)
    pairs = preferences(
        task.policy,
        task.reward_model,
        task.prompts,
        samples=task.samples,
        max_tokens=task.max_tokens,
        seed=task.seed,
        part=task.target.with_name(".responses.jsonl"),
    )
    print(f"{task.target}: {len(pairs)} pairs of {len(task.prompts)} prompts", flush=True)
    write_jsonl(task.target, pairs)


if __name__ == "__main__":
    child.end_with(os.getppid())
    try:
        main(Path(sys.argv[1]))
    except ExpoflowError as error:
        sys.exit(f"error: {error}")
