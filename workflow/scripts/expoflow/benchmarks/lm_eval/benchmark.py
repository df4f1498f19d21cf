"""Any tasks of lm-eval: all figures that are means over documents, under lm-eval's names."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np

from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.lm_eval import asking, figures
from expoflow.benchmarks.lm_eval.answers import Asked, Graded, prompt_digests
from expoflow.benchmarks.lm_eval.definitions import Figure
from expoflow.benchmarks.lm_eval.files import Plan
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.files.records import read_json
from expoflow.results import Metric


def run(job: Job) -> None:
    """Have lm-eval ask the variant's model the tasks of `inputs["data"]`.

    The answers are kept by content. The same model with the same tasks, data and settings is not
    asked again.
    """
    config, plan = job.settings, read_json(job.inputs["data"], Plan)
    asked = Asked(
        model=job.model,
        config=config,
        members=tuple({"task": each.task, **each.settings} for each in plan.tasks),
        include=tuple(plan.folders),
        chat_template=config.apply_chat_template,
        num_fewshot=config.num_fewshot,
    )
    key = {
        "model": job.content,
        "data": plan.content(),
        "definitions": {name: each.sha256 for name, each in plan.definitions.items()},
        "trust_remote_code": job.model.trust_remote_code,
        "chat_template": job.model.chat_template if config.apply_chat_template else None,
        "settings": config.identity(),
        "lm_eval": version("lm_eval"),
    }
    rows = asking.ask(job, asked, key, list, Graded)
    job.write(
        rows,
        measure(rows, plan.told),
        "lm_eval",
        ["lm_eval", "datasets"],
        settings=config.model_dump(),
        data={name: each.revision or each.folder for name, each in plan.datasets.items()},
        prompt_digests=prompt_digests((row.part, row.prompt_hash) for row in rows),
    )


def run_comparison(comparison: Comparison) -> None:
    """Write the paired differences over the documents of all tasks."""
    told = read_json(comparison.inputs["data"], Plan).told
    rows = (comparison.rows(variant, Graded) for variant in ("expo", "aligned"))
    comparison.write(compare(*rows, told, comparison.select), "lm_eval")


# The values of the documents and their weights, shape (documents,) each, by task and
# "metric,filter".
Values = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]


def measure(rows: Sequence[Graded], told: Sequence[Figure]) -> list[Metric]:
    """Every figure with its standard error over documents."""
    values = _values(rows)
    linear = {
        task: {name: linearised(*each) for name, each in metrics.items()} for task, metrics in values.items()
    }
    return [figures.mean(name, strata) for name, strata in _strata(linear, told)]


def compare(
    expo: Sequence[Graded], aligned: Sequence[Graded], told: Sequence[Figure], config: SelectConfig
) -> list[Metric]:
    """Paired differences expo - aligned of every figure, with intervals and p-values.

    Both must have answered the same documents.
    """
    documents = [[(row.part, row.doc, row.doc_hash) for row in rows] for rows in (expo, aligned)]
    if documents[0] != documents[1]:
        raise DataError("expo and aligned answered different documents; delete both results and run again")
    after, before = _values(expo), _values(aligned)
    paired = {
        task: {
            name: linearised(*each) - linearised(*before[task][name])
            for name, each in metrics.items()
            if name in before[task]
        }
        for task, metrics in after.items()
    }
    return [figures.difference(name, strata, config) for name, strata in _strata(paired, told)]


def linearised(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values with the weighted mean of `values` as plain mean, and with the spread of a ratio.

    All have shape (documents,). With equal weights they are the values themselves.
    """
    if np.ptp(weights) == 0:
        return values
    mean = np.average(values, weights=weights)
    return mean + weights * (values - mean) / weights.mean()


def _values(rows: Sequence[Graded]) -> Values:
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in row.values.items():
            found[row.part][name].append(value)
    return {
        task: {name: tuple(np.array(each, float).T) for name, each in metrics.items()}
        for task, metrics in found.items()
    }


def _strata(
    values: Mapping[str, Mapping[str, np.ndarray]], told: Sequence[Figure]
) -> list[tuple[str, figures.Strata]]:
    """The figures' names and strata: the documents of a task, or of every part of a group."""
    found = []
    for figure in told:
        names = dict.fromkeys(name for part in figure.parts for name in values[part])
        if figure.metric is not None:
            wanted = [name.rpartition(",") for name in names]
            names = [
                f"{metric},{way}"
                for metric, _, way in wanted
                if metric == figure.metric and (figure.filters is None or way in figure.filters)
            ]
        for name in names:
            parts = [values[part][name] for part in figure.parts if name in values[part]]
            count = sum(map(len, parts))
            weights = [len(each) / count if figure.by_size else 1 / len(parts) for each in parts]
            found.append((_spelled(figure.name, name, names), list(zip(weights, parts, strict=True))))
    return found


def _spelled(task: str, name: str, names: Sequence[str]) -> str:
    """TASK.METRIC, followed by the filter if the metric is reported for several filters."""
    metric, _, way = name.rpartition(",")
    several = sum(each.rpartition(",")[0] == metric for each in names) > 1
    return f"{task}.{metric}.{way}" if several else f"{task}.{metric}"
