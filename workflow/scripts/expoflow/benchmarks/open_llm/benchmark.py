"""The Open LLM Leaderboard, version 1, through lm-eval: six tasks, their average, and the miniature's own two."""

from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from scipy import stats

from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.open_llm.files import TaskData
from expoflow.benchmarks.open_llm.tasks import LEADERBOARD, Answered, Asked, Kept, prompt_digests, task_files
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.files import hashing
from expoflow.files.records import read_json
from expoflow.files.resumable import Part
from expoflow.hosts import client
from expoflow.hosts.task import Task
from expoflow.results import Metric
from expoflow.selection import statistics


def run(job: Job) -> None:
    """Have lm-eval ask the variant's model about the datasets of `inputs["data"]`.

    The answers are kept in the store by content: the same model with the same data and settings is not asked
    again. Those of a run that was cut off are in a part file beside `job.rows`.
    """
    config, data = job.settings, read_json(job.inputs["data"], TaskData)
    key = {
        "model": job.content,
        "data": data.content(),
        "trust_remote_code": job.model.trust_remote_code,
        "chat_template": job.model.chat_template if config.chat_template else None,
        "settings": config.identity(),
        "tasks": task_files(),
        "lm_eval": version("lm_eval"),
    }

    def make() -> list[Answered]:
        part = job.rows.with_name(f".{job.rows.name}.answers.part")
        kept = Part(part, hashing.json_digest(key), Kept)
        if kept.rows:
            job.say(f"{len(kept.rows)} answers are there already, from a run that was cut off")
        folders = {name: each.folder for name, each in data.datasets.items()}
        return answers(Asked(model=job.model, config=config, data=folders), kept)

    rows, kept = job.cached("open_llm", key, make, Answered)
    if kept:
        job.say(f"{job.pair}: {job.variant}: open_llm: {len(rows)} answers are kept from before")
    job.write(
        rows,
        measure(rows),
        "open_llm",
        ["lm_eval", "datasets"],
        settings=config.model_dump(),
        data={name: each.revision or each.folder for name, each in data.datasets.items()},
        prompt_digests=prompt_digests(rows),
    )


def answers(asked: Asked, kept: Part[Kept]) -> list[Answered]:
    """What the model answers, by a host where there is one; `kept` grows by every answer as it comes."""

    def task() -> Task:
        arguments = asked.model_copy(update={"kept": tuple(kept.rows)}).model_dump(mode="json")
        return Task(kind="open_llm", key=asked.key(), arguments=arguments)

    result = []
    for rows in client.run(task):
        kept.add([Kept.model_validate(row["kept"]) for row in rows if "kept" in row])
        result += [Answered.model_validate(row["answered"]) for row in rows if "answered" in row]
    return result


def run_comparison(comparison: Comparison) -> None:
    """The paired differences over the documents of all tasks."""
    rows = (comparison.rows(variant, Answered) for variant in ("expo", "aligned"))
    comparison.write(compare(*rows, comparison.select), "open_llm")


def measure(rows: Sequence[Answered]) -> list[Metric]:
    """Per task its mean, and over the leaderboard's six their unweighted average.

    Standard errors are over documents; a task of several parts (MMLU) is the unweighted mean of their means.
    """
    tasks = _values(rows)
    metrics = [_metric(name, [parts]) for name, parts in tasks.items()]
    if set(LEADERBOARD) <= set(tasks):
        metrics.append(_metric("average", [tasks[name] for name in LEADERBOARD]))
    return metrics


def compare(expo: Sequence[Answered], aligned: Sequence[Answered], config: SelectConfig) -> list[Metric]:
    """Paired differences expo - aligned of every metric over the same documents, with intervals and p-values."""
    if [_document(row) for row in expo] != [_document(row) for row in aligned]:
        raise DataError("expo and aligned answered other documents; delete both results and run again")
    paired = [
        after.model_copy(update={"value": after.value - before.value})
        for after, before in zip(expo, aligned, strict=True)
    ]
    tasks = _values(paired)
    metrics = [_difference(name, [parts], config) for name, parts in tasks.items()]
    if set(LEADERBOARD) <= set(tasks):
        metrics.append(_difference("average", [tasks[name] for name in LEADERBOARD], config))
    return metrics


def _document(row: Answered) -> tuple[str, str, int, str]:
    return row.task, row.part, row.doc, row.doc_hash


Parts = list[np.ndarray]  # the values of every part of a task


def _values(rows: Sequence[Answered]) -> dict[str, Parts]:
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values[row.task][row.part].append(row.value)
    return {task: [np.array(each) for each in parts.values()] for task, parts in values.items()}


def _weighted(tasks: Sequence[Parts]) -> list[tuple[float, np.ndarray]]:
    """Parts with the weight that each of their means has in the mean over tasks of the mean over parts."""
    return [(1 / len(tasks) / len(parts), values) for parts in tasks for values in parts]


def _metric(name: str, tasks: Sequence[Parts]) -> Metric:
    parts = _weighted(tasks)
    variance = sum((weight * statistics.standard_error(values)) ** 2 for weight, values in parts)
    return Metric(
        metric=name,
        value=float(sum(weight * values.mean() for weight, values in parts)),
        standard_error=float(np.sqrt(variance)),
        n=sum(len(values) for _, values in parts),
    )


def _difference(name: str, tasks: Sequence[Parts], config: SelectConfig) -> Metric:
    """Of one part a bootstrap interval, of several a normal one (their sizes are fixed, not drawn)."""
    metric, parts = _metric(name, tasks), _weighted(tasks)
    n = metric.n
    values = np.concatenate(
        [each * (weight * n / len(each)) for weight, each in parts]
    )  # their mean is the metric
    if len(parts) == 1:
        low, high = statistics.mean_interval(values, config.confidence, config.resamples)
    else:
        width = stats.norm.ppf((1 + config.confidence) / 2) * metric.standard_error
        low, high = metric.value - width, metric.value + width
    # where both are alike a change of sign changes nothing, and most documents are
    p_value = statistics.paired_p_value(values[values != 0], config.resamples)
    return metric.model_copy(update={"low": float(low), "high": float(high), "p_value": p_value})
