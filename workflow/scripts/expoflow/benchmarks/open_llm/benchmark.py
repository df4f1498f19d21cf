"""The Open LLM Leaderboard, version 1, by lm-eval: six tasks and their average.

The miniature has two tasks of its own.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np

from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.lm_eval import asking, figures
from expoflow.benchmarks.lm_eval.answers import prompt_digests
from expoflow.benchmarks.lm_eval.data import TaskData
from expoflow.benchmarks.open_llm.tasks import LEADERBOARD, Answered, asked, normalised, task_files
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.files.records import read_json
from expoflow.results import Metric


def run(job: Job) -> None:
    """Have lm-eval ask the variant's model about the datasets of `inputs["data"]`.

    The answers are kept by content. The same model with the same data and settings is not asked
    again.
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
    folders = {name: each.folder for name, each in data.datasets.items()}
    rows = asking.ask(
        job, asked(job.model, config, folders), key, lambda rows: normalised(rows, config.tasks), Answered
    )
    job.write(
        rows,
        measure(rows),
        "open_llm",
        ["lm_eval", "datasets"],
        settings=config.model_dump(),
        data={name: each.revision or each.folder for name, each in data.datasets.items()},
        prompt_digests=prompt_digests((row.task, row.prompt_hash) for row in rows),
    )


def run_comparison(comparison: Comparison) -> None:
    """Write the paired differences over the documents of all tasks."""
    rows = (comparison.rows(variant, Answered) for variant in ("expo", "aligned"))
    comparison.write(compare(*rows, comparison.select), "open_llm")


def measure(rows: Sequence[Answered]) -> list[Metric]:
    """The mean of every task, and the unweighted average of the leaderboard's six tasks.

    Standard errors are over documents. A task with several parts (MMLU) is the unweighted mean of
    the parts' means.
    """
    return _figures(rows, figures.mean)


def compare(expo: Sequence[Answered], aligned: Sequence[Answered], config: SelectConfig) -> list[Metric]:
    """Paired differences expo - aligned of every metric, with intervals and p-values.

    Both must have answered the same documents.
    """
    if [_document(row) for row in expo] != [_document(row) for row in aligned]:
        raise DataError("expo and aligned answered different documents; delete both results and run again")
    paired = [
        after.model_copy(update={"value": after.value - before.value})
        for after, before in zip(expo, aligned, strict=True)
    ]
    return _figures(paired, lambda name, strata: figures.difference(name, strata, config))


def _document(row: Answered) -> tuple[str, str, int, str]:
    return row.task, row.part, row.doc, row.doc_hash


Parts = list[np.ndarray]  # the values of each part of a task


def _figures(rows: Sequence[Answered], figure: Callable[[str, figures.Strata], Metric]) -> list[Metric]:
    tasks = _values(rows)
    metrics = [figure(name, _weighted([parts])) for name, parts in tasks.items()]
    if set(LEADERBOARD) <= set(tasks):
        metrics.append(figure("average", _weighted([tasks[name] for name in LEADERBOARD])))
    return metrics


def _values(rows: Sequence[Answered]) -> dict[str, Parts]:
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values[row.task][row.part].append(row.value)
    return {task: [np.array(each) for each in parts.values()] for task, parts in values.items()}


def _weighted(tasks: Sequence[Parts]) -> figures.Strata:
    """Parts, with the weight of each part's mean in the mean over tasks of means over parts."""
    return [(1 / len(tasks) / len(parts), values) for parts in tasks for values in parts]
