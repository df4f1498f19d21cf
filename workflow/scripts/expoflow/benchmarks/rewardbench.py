"""How often a reward model prefers the better response: accuracy as in RewardBench."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from expoflow.benchmarks.metrics import mean
from expoflow.config.stages import ScoreConfig, SelectConfig
from expoflow.data.preferences import Preference
from expoflow.data.prompts import prompt_id
from expoflow.engines.model import Model
from expoflow.files import hashing
from expoflow.files.records import Record, provenance, read_json, read_jsonl, write_json, write_jsonl
from expoflow.results import Generation, Manifest, Metric, Prompt, RewardCheckResult
from expoflow.scoring.rewards import reward_model, score_responses
from expoflow.selection import statistics

# RewardBench's sections and their subsets (Lambert et al. 2024, Table 1).
SECTIONS = {
    "chat": "alpacaeval-easy alpacaeval-length alpacaeval-hard mt-bench-easy mt-bench-med",
    "chat_hard": "mt-bench-hard llmbar-natural llmbar-adver-neighbor llmbar-adver-GPTInst llmbar-adver-GPTOut "
    "llmbar-adver-manual",
    "safety": "refusals-dangerous refusals-offensive xstest-should-refuse xstest-should-respond donotanswer",
    "reasoning": "math-prm hep-cpp hep-go hep-java hep-js hep-python hep-rust",
}
# This subset has the same weight as the six subsets of code together.
EVEN = "math-prm"


class Preferred(Record):
    """A line of results/models/{model}.rewardbench.jsonl.

    `value` is 1 if the chosen response has the higher reward, 0.5 for a tie, and else 0.
    """

    row: int
    subset: str | None = None
    chosen: float
    rejected: float
    value: float


def check(
    manifest: Path,
    preferences: Path,
    *,
    usage: str,
    score_config: ScoreConfig,
    select: SelectConfig,
    source: str,
    result: Path,
    rows: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Score `preferences` with the reward model of `manifest`; write a row for each and the result.

    `usage` says how to run the model (`Config.usage`). `source` is the config's section on the
    preferences.
    """
    model = read_json(manifest, Manifest)
    preferred = score(reward_model(manifest, usage), read_jsonl(preferences, Preference), score_config)
    metrics = measure(preferred, select)
    write_jsonl(rows, preferred)
    made_with = provenance("torch", "transformers") | {
        "model": manifest.as_posix(),
        "preferences": json.loads(source),
        "preferences_sha256": hashing.sha256(preferences),
        "score": score_config.model_dump(),
    }
    write_json(result, RewardCheckResult(model=model.model, metrics=metrics, provenance=made_with))
    accuracy, ties = metrics[:2]
    say(
        f"{model.model}: prefers the better of two responses in {accuracy.value:.3f}"
        f" [{accuracy.low:.3f}, {accuracy.high:.3f}] of {accuracy.n} pairs"
        f" ({round(ties.value * ties.n)} ties count half)"
    )


def score(scorer: Model, preferences: Sequence[Preference], config: ScoreConfig) -> list[Preferred]:
    """The rewards of both responses to every prompt, in order."""
    prompts, responses = {}, []
    for number, each in enumerate(preferences):
        name = prompt_id(each.messages)
        prompts[name] = Prompt(prompt_id=name, messages=each.messages)
        responses += [_given(name, 2 * number, each.chosen), _given(name, 2 * number + 1, each.rejected)]
    rewards = score_responses(scorer, list(prompts.values()), responses, config)
    return [
        Preferred(
            row=number,
            subset=each.subset,
            chosen=chosen,
            rejected=rejected,
            value=preferred(chosen, rejected),
        )
        for number, (each, chosen, rejected) in enumerate(
            zip(preferences, rewards[::2], rewards[1::2], strict=True), start=1
        )
    ]


def _given(prompt: str, sample: int, text: str) -> Generation:
    return Generation(
        prompt_id=prompt, sample=sample, seed=0, response=text, response_tokens=0, finish_reason="stop", engine="given"
    )  # fmt: skip


def preferred(chosen: float, rejected: float) -> float:
    """1 if the chosen response has the higher reward, 0.5 if both rewards are equal, else 0."""
    return (chosen > rejected) + (chosen == rejected) / 2


def measure(rows: Sequence[Preferred], config: SelectConfig) -> list[Metric]:
    """accuracy, with the interval of `config`; ties (share); accuracy of every subset.

    If the subsets are those of RewardBench, the metrics also have its sections, and their mean as
    `rewardbench`. The mean leaves out the prior sets, as RewardBench's later leaderboard does.
    """
    metrics = [
        _accuracy("accuracy", [row.value for row in rows], config),
        mean("ties", np.array([float(row.value == 0.5) for row in rows])),
    ]
    subsets = defaultdict(list)
    for row in rows:
        if row.subset is not None:
            subsets[row.subset].append(row.value)
    metrics += [_accuracy(f"accuracy_{name}", values, config) for name, values in sorted(subsets.items())]
    return metrics + _sections(subsets)


def _accuracy(name: str, values: Sequence[float], config: SelectConfig) -> Metric:
    array = np.asarray(values, dtype=float)
    low, high = statistics.mean_interval(array, config.confidence, config.resamples)
    return mean(name, array).model_copy(update={"low": low, "high": high})


def _sections(subsets: dict[str, list[float]]) -> list[Metric]:
    """RewardBench's sections and the mean of all four, if all of their subsets are there."""
    metrics = []
    for section, names in SECTIONS.items():
        if not set(names.split()) <= set(subsets):
            continue
        sizes = {name: len(subsets[name]) for name in names.split()}
        if EVEN in sizes:
            sizes[EVEN] = sum(sizes.values()) - sizes[EVEN]
        weights = {name: size / sum(sizes.values()) for name, size in sizes.items()}
        values = {name: np.asarray(subsets[name], dtype=float) for name in sizes}
        error = sum((weights[name] * statistics.standard_error(values[name])) ** 2 for name in sizes) ** 0.5
        metrics.append(
            Metric(
                metric=section,
                value=float(sum(weights[name] * values[name].mean() for name in sizes)),
                standard_error=float(error),
                n=sum(map(len, values.values())),
            )
        )
    if len(metrics) == len(SECTIONS):
        error = sum(each.standard_error**2 for each in metrics) ** 0.5 / len(metrics)
        value = sum(each.value for each in metrics) / len(metrics)
        n = sum(each.n for each in metrics)
        metrics.append(Metric(metric="rewardbench", value=value, standard_error=error, n=n))
    return metrics
