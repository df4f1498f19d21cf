"""The reward benchmark: reward on unseen prompts, and the true quality if it is known."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.metrics import difference, mean
from expoflow.benchmarks.readable import Answer
from expoflow.config.stages import SelectConfig
from expoflow.data.prompts import prompt_text
from expoflow.engines import model
from expoflow.errors import DataError
from expoflow.files.records import read_jsonl
from expoflow.paths import of_prompts
from expoflow.results import Metric, Prompt, Scored, read_prompts


def run(job: Job) -> None:
    """Generate and score the variant's responses to `inputs["prompts"]`; keep them in the store."""
    config = job.config.section(job.pair, "generate")
    prompts = read_prompts(job.inputs["prompts"])
    rows = job.score(prompts, config)
    job.write(
        rows,
        measure(prompts, rows),
        of_prompts(job.inputs["prompts"]),
        generate=config.model_dump(exclude={"prompts", "engine"}),
        engine=model.chosen(config.engine),
        score=job.config.score.model_dump(),
        reward_model=job.config.reward_model,
    )


def run_comparison(comparison: Comparison) -> None:
    """Write the paired differences on `inputs["prompts"]`."""
    prompts = read_prompts(comparison.inputs["prompts"])
    rows = (comparison.rows(variant, Scored) for variant in ("expo", "aligned"))
    comparison.write(compare(prompts, *rows, comparison.select), of_prompts(comparison.inputs["prompts"]))


def measure(prompts: Sequence[Prompt], scored: Sequence[Scored]) -> list[Metric]:
    """Metrics of one variant. `scored` has the same number of samples of every prompt, in order.

    The metrics are reward (with a reward model), length in tokens and unfinished (share). A
    miniature also has quality, accuracy, and accuracy on the questions of each task. The latter
    shows if a capability was lost.
    """
    prompts = _answered(prompts, scored)
    return [mean(name, values) for name, values in _values(prompts, scored).items()]


def compare(
    prompts: Sequence[Prompt], expo: Sequence[Scored], aligned: Sequence[Scored], config: SelectConfig
) -> list[Metric]:
    """Paired differences expo - aligned of every metric, and win_rate.

    win_rate is how often expo's reward is higher.

    Equal rewards count half. Without rewards there is no win_rate. Intervals and p-values are over
    prompts. Raises DataError if the two did not answer the same prompts.
    """
    answered = [[(row.prompt_id, row.sample) for row in rows] for rows in (expo, aligned)]
    if answered[0] != answered[1] or not expo:
        raise DataError("expo and aligned answered different prompts; delete both results and run again")
    prompts = _answered(prompts, expo)
    before, after = _values(prompts, aligned), _values(prompts, expo)
    differences = [difference(name, after[name] - before[name], config) for name in after]
    if "reward" not in after:
        return differences
    won = np.array(
        [(a.reward > b.reward) + (a.reward == b.reward) / 2 for a, b in zip(expo, aligned, strict=True)]
    )
    return [*differences, difference("win_rate", _by_prompt(prompts, won), config, null=0.5)]


def readable(inputs: Mapping[str, Path], rows: Path) -> list[Answer]:
    """The responses for human readers (`benchmarks.readable`)."""
    prompts = {prompt.prompt_id: prompt_text(prompt) for prompt in read_prompts(inputs["prompts"])}
    return [
        Answer(
            item=row.prompt_id,
            prompt=prompts[row.prompt_id],
            **row.model_dump(
                include={"response", "response_tokens", "finish_reason", "sample", "reward", "quality"}
            ),
        )
        for row in read_jsonl(rows, Scored)
    ]


def _answered(prompts: Sequence[Prompt], scored: Sequence[Scored]) -> list[Prompt]:
    """The prompts that have a response, in the order of the responses.

    Prompts that are too long may have been skipped. Raises DataError if a response is to another
    prompt, or if one prompt has more responses than another.
    """
    counts = Counter(row.prompt_id for row in scored)
    kept = [prompt for prompt in prompts if prompt.prompt_id in counts]
    if [prompt.prompt_id for prompt in kept] != [*counts] or len({*counts.values()}) != 1:
        raise DataError(
            "the responses of benchmark reward do not fit its prompts, with equally many for each; delete its results in"
            " results/pairs/ and run snakemake again"
        )
    return kept


def _values(prompts: Sequence[Prompt], scored: Sequence[Scored]) -> dict[str, np.ndarray]:
    """For every metric, the mean over the samples of each prompt."""
    rewards = [row.reward for row in scored]
    columns = {"reward": rewards} if None not in rewards else {}
    columns |= {
        "length": [row.response_tokens for row in scored],
        "unfinished": [row.finish_reason == "length" for row in scored],
    }
    values = {name: _by_prompt(prompts, column) for name, column in columns.items()}
    if all(row.quality is not None for row in scored):
        values["quality"] = _by_prompt(prompts, [row.quality for row in scored])
        values["accuracy"] = _by_prompt(prompts, [row.correct for row in scored])
        tasks = np.array([prompt.meta["task"] for prompt in prompts])
        for task in sorted(set(tasks)):
            values[f"accuracy_{task}"] = values["accuracy"][tasks == task]
    return values


def _by_prompt(prompts: Sequence[Prompt], column: Sequence[float]) -> np.ndarray:
    return np.asarray(column, dtype=float).reshape(len(prompts), -1).mean(axis=1)
