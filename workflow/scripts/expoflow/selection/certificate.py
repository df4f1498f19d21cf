"""The certificate: the gain of the chosen alpha on prompts that took no part in the choice, and how often they were looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.files.hashing import json_digest
from expoflow.files.records import Record, read_jsonl, write_jsonl
from expoflow.results import Best, Certificate, Metric, Scored
from expoflow.selection import measures, split, statistics
from expoflow.selection.choice import Candidate
from expoflow.selection.criteria import CRITERIA
from expoflow.selection.measures import Changes


@dataclass(frozen=True)
class HeldOut:
    """The paired gain on prompts that took no part in the choice.

    `measure` is the criterion that the gain is of, `prompts` their ids, `digest` stands for all that was measured, `left_out` is the
    number of prompts that were left out, since they chose alpha too.
    """

    measure: str
    prompts: tuple[str, ...]
    gain: float
    low: float
    high: float
    digest: str
    left_out: int = 0


class Look(Record):
    """A line of looks.jsonl: a result that was seen on these prompts."""

    alpha: str
    prompts: list[str]
    digest: str


def on_test(
    compared: Metric, expo: Sequence[Scored], aligned: Sequence[Scored], chose: set[str], config: SelectConfig
) -> HeldOut | None:
    """The gain in reward on the prompts of the benchmark reward, apart from those in `chose`; None if none is left.

    `compared` is the benchmark's paired difference, and `expo` and `aligned` are the scored responses that it is of.
    Raises DataError if they do not fit together.
    """
    keys = [[(row.prompt_id, row.sample) for row in rows] for rows in (expo, aligned)]
    gains: dict[str, list[float]] = {}
    if keys[0] == keys[1] and not any(row.reward is None for row in (*expo, *aligned)):
        for one, other in zip(expo, aligned, strict=True):
            gains.setdefault(one.prompt_id, []).append(one.reward - other.reward)
    if not gains or len(gains) != compared.n:
        raise DataError(
            "the results of the benchmark reward of expo, of aligned and of their difference are of other responses; delete "
            "them and run snakemake again"
        )
    kept = {prompt: np.mean(each) for prompt, each in gains.items() if prompt not in chose}
    if not kept:
        return None
    gain, low, high = compared.value, compared.low, compared.high
    if left_out := len(gains) - len(kept):
        values = np.array([*kept.values()])
        gain = float(values.mean())
        low, high = statistics.mean_interval(values, config.confidence, config.resamples)
    digest = json_digest([[row.prompt_id, row.sample, row.reward] for row in (*expo, *aligned)])
    return HeldOut("reward", tuple(kept), gain, low, high, digest, left_out)


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
    held = [split.part(each, config.judge, pair, judges=True) for each in (rewards, likelihoods)]
    measured = measures.measure(*held)
    measure = "reward" if "reward" in measured else config.by
    if measure not in measured:
        raise DataError(
            f"{pair}: {CRITERIA[measure].words} is not known of all responses; run snakemake again"
        )
    prompts = held[0][alpha]["prompt_id"].drop_duplicates().tolist()
    weights = statistics.resampled(len(prompts), config.resamples, seed)
    changes = Changes.of(measured[measure], ("0", alpha), weights)
    low, high = changes.intervals(config.confidence)[alpha]
    seen = [[part.tolist() for part in measured[measure][each]] for each in ("0", alpha)]
    digest = json_digest([measure, prompts, seen])
    return HeldOut(measure, tuple(prompts), float(changes.changes[1]), low, high, digest)


def certify(
    best: Best, held_out: HeldOut | None, looks: Path, config: SelectConfig, chosen_on: str, judged_on: str
) -> Certificate:
    """The certificate of a choice; what was seen is added to the file `looks`, which keeps count of it.

    Prompts were looked at once for every other result that any of them was part of: dropping a few does not begin the count anew.
    """
    if held_out is None:
        return Certificate(
            pair=best.pair,
            alpha=best.alpha,
            held_out=False,
            certified=False,
            confidence=config.confidence,
            chosen_on=chosen_on,
            judged_on=chosen_on,
        )
    known = np.isfinite([held_out.low, held_out.high]).all()
    known = known and statistics.proves(len(held_out.prompts), config.confidence)
    judged = Candidate(best.alpha, held_out.gain, held_out.gain, held_out.low, held_out.high)
    return Certificate(
        pair=best.pair,
        alpha=best.alpha,
        held_out=True,
        certified=bool(known) and best.alpha != "0" and CRITERIA[held_out.measure].certifies(judged),
        measure=held_out.measure,
        gain=held_out.gain if np.isfinite(held_out.gain) else None,
        low=held_out.low if known else None,
        high=held_out.high if known else None,
        confidence=config.confidence,
        chosen_on=chosen_on,
        judged_on=judged_on,
        prompts=len(held_out.prompts),
        left_out=held_out.left_out,
        looks=_count(looks, Look(alpha=best.alpha, prompts=list(held_out.prompts), digest=held_out.digest)),
    )


def _count(path: Path, look: Look) -> int:
    """How many results on any of the prompts of `look` were seen, it included; it is added to those in `path`."""
    looks = read_jsonl(path, Look) if path.exists() else []
    if look.digest not in {each.digest for each in looks}:
        looks.append(look)
        write_jsonl(path, looks)
    return len({each.digest for each in looks if not set(each.prompts).isdisjoint(look.prompts)})
