"""theory.json: compare an objective J along alpha with its first order (the paper's Equation 2).

J(theta1 + alpha * delta) - J(theta1) is compared with alpha * <grad J(theta1), delta>. J is one of
two objectives. The first is the mean margin log pi(chosen) - log pi(rejected) of held-out
preferences; its derivative is exact. The second is the expected reward at temperature 1; its
derivative is a policy gradient, the mean over samples of (reward - mean reward of the prompt's
other samples) * d/dalpha log pi(response).
"""

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from expoflow.config.base import MINIATURE
from expoflow.config.benchmarks import RewardCheck
from expoflow.config.recipes import MiniatureDpo
from expoflow.config.stages import GenerateConfig, ScoreConfig, SelectConfig
from expoflow.config.theory import TheoryConfig
from expoflow.data import preferences
from expoflow.data.preferences import Preference
from expoflow.engines import responses
from expoflow.engines.model import Model
from expoflow.extrapolation.recipe import ExtrapolationRecipe
from expoflow.files import hashing
from expoflow.files.records import provenance, read_json, write_json
from expoflow.results import Generation, Manifest, Prompt, read_prompts
from expoflow.scoring.rewards import score_responses
from expoflow.selection import statistics
from expoflow.theory import question
from expoflow.theory.deltas import opened, smallness
from expoflow.theory.result import FirstOrder, Point, Theory

FINE = 24  # alphas at which the margin is evaluated
SMALLEST = 0.005  # the smallest of them, as a share of the largest alpha
Values = NDArray[np.float64]


class Along(NamedTuple):
    """An objective by prompt [prompts] at several alphas, including 0, and its slopes at 0."""

    values: dict[float, Values]
    slopes: Values
    samples: int


class Measurement(NamedTuple):
    """The settings that a pair's theory.json depends on."""

    config: TheoryConfig
    generate: GenerateConfig
    score: ScoreConfig
    select: SelectConfig
    alphas: list[str]
    vocabulary: str
    seed: int


def measure_pair(
    pair: str,
    recipe: Path,
    sft: Manifest,
    aligned: Manifest,
    prompts: Path,
    reward_model: Model | None,
    output: Path,
    what: Measurement,
    usage: str = "{}",
    say: Callable[[str], None] = print,
) -> None:
    """Write theory.json.

    `recipe` is that of alpha 0; its folder has theta1's package. `reward_model` scores responses.
    Raises PairError for checkpoints that do not fit, and DataError for prompts or preferences that
    cannot be used.
    """
    small = smallness(opened(sft, aligned, what.vocabulary), what.alphas)
    model = responses.model(read_json(recipe, ExtrapolationRecipe), recipe.parent, sft, aligned, usage)
    asked = read_prompts(prompts)[: what.config.limit]
    objectives = along(
        model, held_out(what.config, what.seed), asked, reward_model, what.config, what.generate.seed, largest(what.alphas), what.score
    )  # fmt: skip
    steps = {"margin": what.config.step, "reward": what.config.reward_step}
    found = {
        name: judged(each, steps[name] * largest(what.alphas), largest(what.alphas), what.config, what.select)
        for name, each in objectives.items()
    }
    made_with = provenance("torch", "transformers") | {
        "theory": json.loads(what.config.canonical(exclude={"planes"})),
        "prompts_sha256": hashing.sha256(prompts),
        "seed": what.generate.seed,
    }
    write_json(output, Theory(pair=pair, smallness=small, first_order=found, provenance=made_with))
    for name, each in found.items():
        say(
            f"{pair}: {name}: slope {each.slope:.4g} [{each.slope_low:.4g}, {each.slope_high:.4g}], finite difference"
            f" {each.difference:.4g}; {each.reason}"
        )


def largest(alphas: Sequence[str]) -> float:
    """Return a grid's largest alpha, the unit of steps; 1 if no alpha is positive."""
    return max((float(alpha) for alpha in alphas if float(alpha) > 0), default=1.0)


def held_out(config: TheoryConfig, seed: int) -> list[Preference]:
    """Return the preferences of the margin; `seed` is the miniature's."""
    if config.preferences != MINIATURE:
        return preferences.gather(RewardCheck(file=config.preferences), seed)[: config.examples]
    writers = importlib.import_module("expoflow.miniature.writers")  # files need no writers
    usual = MiniatureDpo.model_construct()
    pairs = writers.preference_pairs(
        config.examples, seed, "test", usual.annotator_temperature, usual.length_bias, usual.label_noise
    )
    return [
        Preference(messages=each.prompt.messages, chosen=each.chosen, rejected=each.rejected)
        for each in pairs
    ]


def along(
    model: Model,
    held_out: Sequence[Preference],
    prompts: Sequence[Prompt],
    reward_model: Model | None,
    config: TheoryConfig,
    seed: int,
    end: float,
    score: ScoreConfig,
) -> dict[str, Along]:
    """Return both objectives along alpha up to `end`; only the margin without a `reward_model`.

    `model` is theta1 in its package, streamed from theta0 and theta1.
    """
    fine = [0.0, -config.step * end, config.step * end, *np.geomspace(SMALLEST * end, end, FINE).tolist()]
    coarse = [0.0, -config.reward_step * end, *_doubling(config.reward_step * end, end)]
    sampling = GenerateConfig(
        temperature=1, top_k=0, top_p=1, presence_penalty=0, frequency_penalty=0, seed=seed,
        samples=config.samples, max_tokens=config.max_tokens,
    )  # fmt: skip
    ask = question.TheoryTask(
        model=model,
        corners=question.parents(model),
        margins=tuple(map(_shares, fine)),
        preferences=tuple(held_out),
        responses=tuple(map(_shares, coarse)) if reward_model else (),
        prompts=tuple(prompts) if reward_model else (),
        config=sampling,
        towards=(-1.0, 1.0),
    )
    margins: dict[float, Values] = {}
    slopes = np.zeros(0)
    responses: dict[float, list[tuple[Generation, float | None]]] = {}
    for row in question.ask(ask):
        if "margin" in row:
            margins[fine[row["margin"]]] = _margin(row["logps"])
        elif "margin_slopes" in row:
            slopes = _margin(row["logps"])
        else:
            said = Generation.model_validate(row["generation"]), row["slope"]
            responses.setdefault(coarse[row["response"]], []).append(said)
    found = {"margin": Along(margins, slopes, 1)}
    if reward_model:
        found["reward"] = _rewarded(responses, prompts, reward_model, score, config.samples)
    return found


def _shares(alpha: float) -> tuple[float, float]:
    """Return theta1 + alpha * delta as shares of theta0 and theta1."""
    return -alpha, 1 + alpha


def _doubling(first: float, end: float) -> list[float]:
    """Return `first`, its doubles up to nearly `end`, and `end`."""
    steps = []
    while first < end * 0.99:
        steps.append(first)
        first *= 2
    return [*steps, end]


def _margin(logps: list[list[float]]) -> Values:
    chosen, rejected = np.array(logps).T
    return chosen - rejected


def _rewarded(
    responses: dict[float, list[tuple[Generation, float | None]]],
    prompts: Sequence[Prompt],
    reward_model: Model,
    score: ScoreConfig,
    samples: int,
) -> Along:
    """Return the expected reward of every prompt at every alpha, and its policy gradient at 0."""
    flat = [generation for some in responses.values() for generation, _ in some]
    rewards = np.array(score_responses(reward_model, prompts, flat, score))
    by_alpha = dict(zip(responses, rewards.reshape(len(responses), -1, samples), strict=True))
    slopes = np.array([slope for _, slope in responses[0.0]]).reshape(-1, samples)
    return Along(
        {alpha: each.mean(axis=1) for alpha, each in by_alpha.items()},
        policy_gradient(by_alpha[0.0], slopes),
        samples,
    )


def policy_gradient(rewards: Values, slopes: Values) -> Values:
    """Return an unbiased d/dalpha of the expected reward of every prompt [prompts].

    `rewards` and `slopes` are [prompts, samples]; slopes are d/dalpha log pi(response). The
    baseline of a sample is the mean reward of the prompt's other samples.
    """
    samples = rewards.shape[1]
    advantage = (rewards - rewards.mean(axis=1, keepdims=True)) * samples / (samples - 1)
    return (advantage * slopes).mean(axis=1)


def judged(along: Along, step: float, end: float, config: TheoryConfig, select: SelectConfig) -> FirstOrder:
    """Judge how well the first order describes an objective.

    `step` is that of the finite difference.
    """

    def interval(values: Values) -> tuple[float, float]:
        return statistics.mean_interval(values, select.confidence, select.resamples)

    now, slope = along.values[0.0], float(along.slopes.mean())
    differences = (_at(along.values, step) - _at(along.values, -step)) / (2 * step)
    low, high = interval(along.slopes)
    difference_low, difference_high = interval(differences)
    curve = []
    for alpha in sorted(alpha for alpha in along.values if alpha > 0):
        change = along.values[alpha] - now
        change_low, change_high = interval(change)
        # both compared values have sampling errors, from the same prompts
        error = change - alpha * along.slopes
        errors = (float(error.mean()),) * 2 if along.samples == 1 else interval(error)
        curve.append(
            Point(
                alpha=alpha,
                value=float(along.values[alpha].mean()),
                change=float(change.mean()),
                change_low=change_low,
                change_high=change_high,
                predicted=alpha * slope,
                holds=_holds(errors, config.tolerance * abs(alpha * slope)),
            )
        )
    holds_to, reason = reach(curve)
    return FirstOrder(
        n=len(now),
        samples=along.samples,
        step=step,
        value=float(now.mean()),
        slope=slope,
        slope_low=low,
        slope_high=high,
        difference=float(differences.mean()),
        difference_low=difference_low,
        difference_high=difference_high,
        sign=int(low > 0) - int(high < 0),
        holds_to=holds_to,
        holds_share=None if holds_to is None else holds_to / end,
        reason=reason,
        curve=curve,
    )


def _at(values: dict[float, Values], alpha: float) -> Values:
    return values[min(values, key=lambda each: abs(each - alpha))]


def _holds(errors: tuple[float, float], room: float) -> bool | None:
    """Whether an error within this interval is at most `room` in size; None if undecided."""
    low, high = errors
    if -room <= low and high <= room:
        return True
    return False if low > room or high < -room else None


def reach(curve: Sequence[Point]) -> tuple[float | None, str]:
    """Return the largest alpha up to which the first order holds, and what comes then."""
    held = None
    for point in curve:
        if point.holds is None:
            since = "from the first alpha on" if held is None else f"beyond alpha {held:.4g}"
            return held, f"the sampling error leaves open whether the first order holds {since}"
        if not point.holds:
            if held is None:
                return None, f"the first order does not hold even at alpha {point.alpha:.4g}"
            return held, f"the first order holds to alpha {held:.4g}, no longer at {point.alpha:.4g}"
        held = point.alpha
    return held, f"the first order holds to the grid's end, alpha {held:.4g}"
