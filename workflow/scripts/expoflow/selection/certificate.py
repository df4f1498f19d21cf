"""The certificate: the gain of the chosen alpha on prompts that took no part in the choice, and how often they were looked at."""

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

    `measure` is the criterion that it is of, `prompts` are their ids, `digest` stands for all that was measured, and
    `left_out` is the number of prompts that do not count, since they chose alpha too. The ends are NaN if too few prompts prove anything.
    """

    measure: str
    prompts: tuple[str, ...]
    gain: float
    low: float
    high: float
    digest: str
    left_out: int = 0


class Look(Record):
    """A line of looks.jsonl: a result, the prompts that it was seen on, and those that chose its alpha."""

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
    """The gain in reward on the prompts of the benchmark reward, apart from those in `chose`; None if none is left.

    `expo` and `aligned` are the scored responses of both models, and `compared` is the benchmark's mean difference. `seed` is that
    of the bootstrap. Raises DataError if they do not fit together.
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
            "the results of the benchmark reward of expo, of aligned and of their difference are of other responses; delete "
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
    """The change at `alpha` on the part of the sweep's prompts that judges: in reward, else in what alpha was chosen by.

    Tables and `seed` as for `select.select`, of `alpha` and of 0.
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
    """The change from "0" to `alpha` of what every prompt has in `of`, with the interval of a single alpha."""
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
    """The certificate of a choice; what was seen is added to the file `looks`, which keeps count of it.

    `chose` are the ids of the prompts that chose alpha. Prompts were looked at once for every other result that any of them was part
    of, also in choosing alpha: dropping a few, or letting those judge that chose, does not begin the count anew.
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
    """How many results on any of the prompts that `look` judges were seen, it included; it is added to those in `path`."""
    looks = read_jsonl(path, Look) if path.exists() else []
    if look.digest not in {each.digest for each in looks}:
        looks.append(look)
        write_jsonl(path, looks)
    judged = set(look.judged)
    return len({each.digest for each in looks if not judged.isdisjoint([*each.judged, *each.chose])})
