"""The request to lm-eval and its answers.

An answer has a document's values of every metric that is a mean over documents.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from expoflow.config.harness import Harness
from expoflow.engines.model import Model
from expoflow.errors import DataError
from expoflow.files import hashing
from expoflow.files.records import Record

ASKED = "asked"  # the group of all tasks that are asked


class Kept(Record):
    """A model's answer, by lm-eval's hash of the request: text or (log-likelihood, is greedy)."""

    request: str
    answer: str | tuple[float, bool]


class Asked(Record):
    """The arguments of a task of the kind "lm_eval".

    `members` are lm-eval's tasks or groups, in the form of a group's members. Each has settings
    that replace its own. Their definitions lie in the folders `include`. `kept` answers are not
    asked again.
    """

    model: Model
    config: Harness
    members: tuple[dict[str, Any], ...]
    include: tuple[str, ...]
    chat_template: bool = False
    num_fewshot: int | None = None
    kept: tuple[Kept, ...] = ()

    def key(self) -> str:
        """The key of the loaded model: it differs if another model must be loaded."""
        folder = self.model.folder.absolute()
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
        state = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        loading = self.config.model_dump(include=set(Harness.model_fields) - {"limit", "seed"})
        engine = self.model.engine.model_dump(exclude_none=True)
        return hashing.json_digest([str(folder), state, self.model.chat_template, engine, loading])


class Graded(Record):
    """A document of a task, and the model's answer.

    `member` is what was asked for, and `part` is lm-eval's own task (an MMLU subject). `values` has
    (value, weight) by "metric,filter". lm-eval's figure of a task is the weighted mean over its
    documents. `answer` is the generated text, or the log-likelihoods of the choices.
    """

    member: str
    part: str
    doc: int
    doc_hash: str
    prompt_hash: str
    values: dict[str, tuple[float, float]]
    answer: str | list[float]


def graded(results: dict[str, Any]) -> list[Graded]:
    """The documents of lm-eval's results, ordered by member, then by part, then by document.

    Raises DataError if a task has no metric that is a mean over documents.
    """
    rows = []
    for member in results["group_subtasks"][ASKED]:
        for part in _parts(results, member):
            rows += _graded(member, part, results["samples"][part], results["results"][part])
    return rows


def _parts(results: dict[str, Any], member: str) -> list[str]:
    """lm-eval's tasks below a task or group, sorted."""
    names, found = [member], []
    while names:
        name = names.pop()
        below = results["group_subtasks"].get(name)
        found += [name] if below is None else []
        names += below or []
    return sorted(found)


def _graded(
    member: str, part: str, samples: Sequence[dict[str, Any]], official: dict[str, Any]
) -> list[Graded]:
    values: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
    first: dict[int, dict[str, Any]] = {}
    for sample in samples:
        first.setdefault(sample["doc_id"], sample)
        for metric in sample["metrics"]:
            if found := _value(sample[metric]):
                values[sample["doc_id"]][f"{metric},{sample['filter']}"] = found
    counted = {name for each in values.values() for name in each}
    means = {
        name for name in counted if _is_mean([values[doc].get(name) for doc in first], official.get(name))
    }
    if not means:
        raise DataError(
            f"lm-eval's task '{part}' has no metric that is a mean over documents, so models could not be compared by"
            " document; leave it out of tasks"
        )
    if left_out := sorted(counted - means):
        print(f"{part}: {', '.join(left_out)}: left out, not a mean over documents")
    return [
        Graded(
            member=member,
            part=part,
            doc=doc,
            doc_hash=sample["doc_hash"],
            prompt_hash=sample["prompt_hash"],
            values={name: value for name, value in values[doc].items() if name in means},
            answer=_answer(sample),
        )
        for doc, sample in sorted(first.items())
    ]


def _answer(sample: dict[str, Any]) -> str | list[float]:
    answers = [each[0] for each in sample["resps"]]
    if isinstance(answers[0], list | tuple):
        return [float(likelihood) for likelihood, _ in answers]
    return str(answers[0])


def _value(value: Any) -> tuple[float, float] | None:
    """A document's value and its weight; None if it is not a number.

    A list, such as one grade per instruction, has its mean as value and its length as weight. NaN
    has no weight, since some tasks leave it out of their means.
    """
    if isinstance(value, float) and math.isnan(value):
        return 0.0, 0.0
    each = value if isinstance(value, list | tuple) else [value]
    try:
        numbers = [float(one) for one in each if not isinstance(one, str)]
    except (TypeError, ValueError):
        return None
    if not numbers or len(numbers) < len(each) or not all(map(math.isfinite, numbers)):
        return None
    return sum(numbers) / len(numbers), float(len(numbers))


def _is_mean(values: Iterable[tuple[float, float] | None], official: Any) -> bool:
    """Whether lm-eval's own figure is the weighted mean of the values of all documents."""
    found = list(values)
    if not isinstance(official, int | float) or None in found:
        return False
    total = sum(weight for _, weight in found)
    mean = sum(value * weight for value, weight in found) / total if total else math.nan
    return math.isclose(mean, official, rel_tol=1e-9, abs_tol=1e-12)


def prompt_digests(prompts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A digest per task, from pairs (task, hash of a prompt).

    Equal digests mean the same documents, examples and wording.
    """
    hashes = defaultdict(list)
    for task, prompt in prompts:
        hashes[task].append(prompt)
    return {task: hashing.json_digest(each)[:16] for task, each in hashes.items()}
