"""The tasks of the Open LLM Leaderboard and of the miniature, and their answers from lm-eval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from expoflow.benchmarks.lm_eval.answers import Asked, Graded
from expoflow.benchmarks.lm_eval.data import definitions
from expoflow.config.harness import OpenLlmBenchmark
from expoflow.engines.model import Model
from expoflow.errors import DataError
from expoflow.files import hashing
from expoflow.files.records import Record

SUBJECTS = 57


@dataclass(frozen=True)
class Task:
    """A column of the leaderboard: lm-eval's task or group, its dataset, and the counted metric."""

    name: str
    dataset: str
    metric: str
    filter: str = "none"


# Our own task files, in lm-eval's format.
TASK_FILES = Path(__file__).parent / "lm_eval_tasks"
GROUPS = ("open_llm.yaml", "miniature.yaml")
# The folders of lm-eval's own definitions of the six tasks, below the folder of all tasks.
OFFICIAL = ("arc", "hellaswag", "mmlu/default", "gsm8k", "winogrande", "truthfulqa")
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
    """A line of open_llm.generations.jsonl: one document of a task and the model's answer.

    `part` is lm-eval's own task (an MMLU subject). The metric is the mean of `value`. `answer` is
    the generated text, or the log-likelihoods of the choices.
    """

    task: str
    part: str
    doc: int
    doc_hash: str
    prompt_hash: str
    value: float
    answer: str | list[float]


def asked(model: Model, config: OpenLlmBenchmark, data: Mapping[str, str]) -> Asked:
    """The request to lm-eval: official definitions, our numbers of shots, the folders in `data`."""
    folders = {TASKS[name].name: data[TASKS[name].dataset] for name in config.tasks}
    members = []
    for file in GROUPS:
        for member in yaml.safe_load((TASK_FILES / file).read_text(encoding="utf-8"))["task"]:
            if folder := folders.get(member.get("group") or member["task"]):
                members.append(member | {"dataset_path": str(Path(folder).absolute())})
    include = [*(definitions() / name for name in OFFICIAL), TASK_FILES]
    return Asked(
        model=model,
        config=config,
        members=tuple(members),
        include=tuple(map(str, include)),
        chat_template=config.chat_template,
    )


def task_files() -> list[str]:
    """The sha256s of our task files."""
    return [hashing.sha256(path) for path in sorted(TASK_FILES.glob("*.yaml"))]


def normalised(rows: Sequence[Graded], tasks: Sequence[str]) -> list[Answered]:
    """The answers that count, in the order of the tasks and then of their documents."""
    found = []
    for name in tasks:
        task = TASKS[name]
        mine = [row for row in rows if row.member == task.name]
        if name == "mmlu" and (count := len({row.part for row in mine})) != SUBJECTS:
            raise DataError(f"mmlu has {count} subjects instead of {SUBJECTS}; is the dataset complete?")
        found += [_answered(name, task, row) for row in mine]
    return found


def _answered(name: str, task: Task, row: Graded) -> Answered:
    counted = f"{task.metric},{task.filter}"
    if counted not in row.values:
        raise DataError(
            f"{name}: lm-eval does not give a finite '{counted}' for every document; are the model's weights finite?"
        )
    value, _ = row.values[counted]
    shared = row.model_dump(include={"part", "doc", "doc_hash", "prompt_hash", "answer"})
    return Answered(task=name, value=value, **shared)
