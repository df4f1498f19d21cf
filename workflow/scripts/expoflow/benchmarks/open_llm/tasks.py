"""The tasks of the Open LLM Leaderboard and of the miniature, and their answers taken out of lm-eval's results."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expoflow.config.benchmarks import OpenLlmBenchmark
from expoflow.engines.model import Model
from expoflow.errors import DataError
from expoflow.files import hashing
from expoflow.files.records import Record

SUBJECTS = 57


@dataclass(frozen=True)
class Task:
    """A column of the leaderboard: lm-eval's task (or group), the dataset it reads, and what of it counts."""

    name: str
    dataset: str
    metric: str
    filter: str = "none"


# Task files of our own, in lm-eval's format.
TASK_FILES = Path(__file__).parent / "lm_eval_tasks"
TASKS = {
    "arc": Task("arc_challenge", "allenai/ai2_arc", "acc_norm"),
    "hellaswag": Task("hellaswag", "Rowan/hellaswag", "acc_norm"),
    "mmlu": Task("mmlu", "cais/mmlu", "acc"),
    "gsm8k": Task("gsm8k", "openai/gsm8k", "exact_match", "strict-match"),
    "winogrande": Task("winogrande", "allenai/winogrande", "acc"),
    "truthfulqa": Task("truthfulqa_mc2", "truthfulqa/truthful_qa", "acc"),
    "miniature_choice": Task("miniature_choice", "miniature/choice", "acc"),
    "miniature_answer": Task("miniature_answer", "miniature/answer", "exact_match", "first-answer"),
}
LEADERBOARD = tuple(TASKS)[:6]


class Answered(Record):
    """A line of open_llm.generations.jsonl: one document of a task and what the model made of it.

    `part` is lm-eval's own task (an MMLU subject); `value` is what the metric is the mean of; `answer` is the
    generated text, or the log-likelihoods of the choices.
    """

    task: str
    part: str
    doc: int
    doc_hash: str
    prompt_hash: str
    value: float
    answer: str | list[float]


class Kept(Record):
    """An answer of a model's, by lm-eval's hash of the request: a text, or (log-likelihood, is greedy)."""

    request: str
    answer: str | tuple[float, bool]


class Asked(Record):
    """The arguments of an "open_llm" task; `data` has the folders of the datasets, `kept` is not asked again."""

    model: Model
    config: OpenLlmBenchmark
    data: dict[str, str]
    kept: tuple[Kept, ...] = ()

    def folders(self) -> dict[str, str]:
        """By lm-eval's names of the tasks the folders of their datasets."""
        tasks = [TASKS[name] for name in self.config.tasks]
        return {task.name: self.data[task.dataset] for task in tasks}

    def key(self) -> str:
        """What makes it another loaded model."""
        folder = self.model.folder.absolute()
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
        state = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        loading = self.config.model_dump(exclude={"tasks", "data", "limit", "chat_template", "seed"})
        engine = self.model.engine.model_dump(exclude_none=True)
        return hashing.json_digest([str(folder), state, self.model.chat_template, engine, loading])


def task_files() -> list[str]:
    """sha256s of our task files."""
    return [hashing.sha256(path) for path in sorted(TASK_FILES.glob("*.yaml"))]


def normalised(results: dict[str, Any], tasks: Sequence[str]) -> list[Answered]:
    """The samples of lm-eval's results, in the order of the tasks, then of their documents."""
    rows = []
    for name in tasks:
        task = TASKS[name]
        parts = _parts(results, task)
        if name == "mmlu" and len(parts) != SUBJECTS:
            raise DataError(f"mmlu has {len(parts)} subjects instead of {SUBJECTS}; is the dataset complete?")
        for part in parts:
            samples = [each for each in results["samples"][part] if each["filter"] == task.filter]
            rows += [_row(name, part, task, sample) for sample in sorted(samples, key=lambda s: s["doc_id"])]
    return rows


def _parts(results: dict[str, Any], task: Task) -> list[str]:
    """lm-eval's tasks below a task or group, sorted."""
    names, found = [task.name], []
    while names:
        name = names.pop()
        below = results["group_subtasks"].get(name)
        found += [name] if below is None else []
        names += below or []
    return sorted(found)


def _row(name: str, part: str, task: Task, sample: dict[str, Any]) -> Answered:
    answer = sample["filtered_resps"]
    choices = isinstance(answer[0], list | tuple)
    return Answered(
        task=name,
        part=part,
        doc=sample["doc_id"],
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        value=float(sample[task.metric]),
        answer=[float(each[0]) for each in answer] if choices else str(sample["resps"][0][0]),
    )


def prompt_digests(rows: Iterable[Answered]) -> dict[str, str]:
    """Per task a digest of all prompts: equal ones mean the same documents, examples and wording."""
    hashes = defaultdict(list)
    for row in rows:
        hashes[row.task].append(row.prompt_hash)
    return {task: hashing.json_digest(each)[:16] for task, each in hashes.items()}
