"""The certificate: the gain of the chosen alpha on held-out prompts, and how often they were used.

Held-out prompts are prompts that took no part in the choice of alpha.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.files.hashing import json_digest
from expoflow.files.records import Record, read_jsonl, write_jsonl
from expoflow.results import Best, Certificate, Scored
from expoflow.selection import measures, split, statistics
from expoflow.selection.choice import Candidate
from expoflow.selection.criteria import CRITERIA
from expoflow.selection.measures import Changes, OfPrompts


@dataclass(frozen=True)
class HeldOut:
    """The paired change at the chosen alpha on prompts that took no part in the choice.

    `measure` is the criterion whose change this is, and `prompts` are the ids of the prompts.
    `digest` is a digest of everything that was measured. `left_out` is the number of prompts that
    do not count because they also chose alpha. The ends are NaN if there are too few prompts to
    prove anything.
    """

    measure: str
    prompts: tuple[str, ...]
    gain: float
    low: float
    high: float
    digest: str
    left_out: int = 0


class Look(Record):
    """A line of looks.jsonl: a result, the prompts that judged, and those that chose alpha."""

    alpha: str
    judged: list[str]
    chose: list[str]
    digest: str


def on_test(
    compared: float,
    expo: Sequence[Scored],
    aligned: Sequence[Scored],
    chose: Set[str],
    config: SelectConfig,
    seed: int,
) -> HeldOut | None:
    """The gain in reward on the prompts of the benchmark `reward`, without those in `chose`.

    Returns None if no prompt is left.

    `expo` and `aligned` are the scored responses of the two models. `compared` is the benchmark's
    mean difference. `seed` is the seed of the bootstrap. Raises DataError if the responses and the
    difference do not fit together.
    """
    keys = [[(row.prompt_id, row.sample) for row in rows] for rows in (expo, aligned)]
    rewards: dict[str, list[tuple[float, float]]] = {}
    if keys[0] == keys[1] and not any(row.reward is None for row in (*expo, *aligned)):
        for one, other in zip(expo, aligned, strict=True):
            rewards.setdefault(one.prompt_id, []).append((one.reward, other.reward))
    means = {prompt: np.mean(each, axis=0) for prompt, each in rewards.items()}
    gain = np.mean([after - before for after, before in means.values()]) if means else np.nan
    if not math.isclose(gain, compared, rel_tol=1e-6, abs_tol=1e-9):
        raise DataError(
            "the benchmark reward has results of expo, aligned and their difference that are of other responses; delete "
            "them and run snakemake again"
        )
    kept = {prompt: each for prompt, each in means.items() if prompt not in chose}
    if not kept:
        return None
    values, ones = np.array([*kept.values()]), np.ones(len(kept))
    digest = json_digest([[row.prompt_id, row.sample, row.reward] for row in (*expo, *aligned)])
    of = {"0": (values[:, 1], ones), "expo": (values[:, 0], ones)}
    return _held_out("reward", tuple(kept), of, "expo", config, seed, digest, len(means) - len(kept))


def on_part(
    pair: str,
    alpha: str,
    rewards: Mapping[str, pd.DataFrame],
    likelihoods: Mapping[str, pd.DataFrame],
    config: SelectConfig,
    seed: int,
) -> HeldOut:
    """The change at `alpha` on the part of the sweep's prompts that judges the choice.

    It is the change in reward or, without a reward model, in the criterion that chose alpha.

    The tables are those of `alpha` and of alpha 0; they and `seed` are as in `select.select`.
    """
    measures.require_same_responses(rewards)
    held = [split.part(each, config.judge, pair, judges=True) for each in (rewards, likelihoods)]
    measured = measures.measure(*held)
    measure = "reward" if "reward" in measured else config.by
    if measure not in measured:
        raise measures.unknown(pair, measure)
    prompts = held[0][alpha]["prompt_id"].drop_duplicates().tolist()
    seen = [[part.tolist() for part in measured[measure][each]] for each in ("0", alpha)]
    digest = json_digest([measure, prompts, seen])
    return _held_out(measure, tuple(prompts), measured[measure], alpha, config, seed, digest)


def _held_out(
    measure: str,
    prompts: tuple[str, ...],
    of: OfPrompts,
    alpha: str,
    config: SelectConfig,
    seed: int,
    digest: str,
    left_out: int = 0,
) -> HeldOut:
    """The change from "0" to `alpha` in the values of `of`, with the interval of a single alpha."""
    weights = statistics.resampled(len(prompts), config.resamples, seed)
    changes = Changes.of(of, ("0", alpha), weights)
    low, high = changes.intervals(config.confidence)[alpha]
    return HeldOut(measure, prompts, float(changes.changes[1]), low, high, digest, left_out)


def certify(
    best: Best,
    held_out: HeldOut | None,
    chose: Set[str],
    looks: Path,
    config: SelectConfig,
    chosen_on: str,
    judged_on: str | None,
) -> Certificate:
    """Certify a choice, and add this look at the prompts to the file `looks`.

    `chose` are the ids of the prompts that chose alpha. The certificate counts the results that any
    of the judging prompts was part of, also as a prompt that chose alpha. The count therefore does
    not start again if a few prompts are dropped, or if prompts that chose alpha before judge now.
    """
    known = {"pair": best.pair, "alpha": best.alpha, "choice": best.digest(), "chosen_on": chosen_on}
    known["confidence"] = config.confidence
    if held_out is None:
        _count(looks, Look(alpha=best.alpha, judged=[], chose=sorted(chose), digest=best.digest()))
        return Certificate(**known, held_out=False, certified=False)
    judged = Candidate(best.alpha, held_out.gain, held_out.gain, held_out.low, held_out.high)
    look = Look(
        alpha=best.alpha,
        judged=list(held_out.prompts),
        chose=sorted(chose.difference(held_out.prompts)),
        digest=held_out.digest,
    )
    numbers = {"gain": held_out.gain, "low": held_out.low, "high": held_out.high}
    return Certificate(
        **known,
        held_out=True,
        certified=best.alpha != "0" and CRITERIA[held_out.measure].certifies(judged),
        measure=held_out.measure,
        **{name: value for name, value in numbers.items() if np.isfinite(value)},
        judged_on=judged_on,
        prompts=len(held_out.prompts),
        left_out=held_out.left_out,
        looks=_count(looks, look),
    )


def _count(path: Path, look: Look) -> int:
    """Add `look` to the file; count the results on any of its judging prompts, itself included."""
    looks = read_jsonl(path, Look) if path.exists() else []
    if look.digest not in {each.digest for each in looks}:
        looks.append(look)
        write_jsonl(path, looks)
    judged = set(look.judged)
    return len({each.digest for each in looks if not judged.isdisjoint([*each.judged, *each.chose])})
