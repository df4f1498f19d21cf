"""MT-Bench's questions, judge prompts and reference answers, from FastChat's published files.

None of them is part of expoflow. In a checkout of FastChat they are

    fastchat/llm_judge/data/judge_prompts.jsonl
    fastchat/llm_judge/data/mt_bench/question.jsonl
    fastchat/llm_judge/data/mt_bench/reference_answer/gpt-4.jsonl
"""

import importlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expoflow.config.base import MINIATURE
from expoflow.config.benchmarks import MtBenchBenchmark
from expoflow.config.stages import GenerateConfig
from expoflow.errors import CheckpointError, DataError
from expoflow.files.hashing import sha256
from expoflow.files.records import Record, write_json

FILES = ("question.jsonl", "judge_prompts.jsonl", "reference_answer/gpt-4.jsonl")
QUESTIONS = 80  # of the published questions
# Tokens of a judge's prompt (question, instructions, reference) without the answers to judge; a
# high estimate.
GRADING = 700
GRADE_TOKENS = 2048
WITH_REFERENCE = ("math", "reasoning", "coding")  # categories that are graded against a reference answer
# Judge prompts by (with a reference, second turn).
PROMPTS = {
    (False, False): "single-v1",
    (True, False): "single-math-v1",
    (False, True): "single-v1-multi-turn",
    (True, True): "single-math-v1-multi-turn",
}


class Question(Record):
    """Two turns and, in some categories, the reference's answers to them."""

    question_id: int
    category: str
    turns: tuple[str, str]
    reference: tuple[str, str] | None = None


class JudgePrompt(Record):
    """A judge's system prompt, and the user prompt with {question}, {answer}, {ref_answer_1} ..."""

    system: str
    template: str


class Questions(Record):
    """results/benchmarks/mt_bench.{source}.json: all questions, and the files that had them."""

    questions: list[Question]
    prompts: dict[str, JudgePrompt]
    sha256s: dict[str, str]


def judge_messages(data: Questions, question: Question, answers: Sequence[str]) -> list[dict[str, str]]:
    """The messages to a judge, to grade the last of one or two answers."""
    prompt = data.prompts[PROMPTS[question.reference is not None, len(answers) == 2]]
    return [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": prompt.template.format(**_values(question, answers))},
    ]


def _values(question: Question, answers: Sequence[str]) -> dict[str, str]:
    """The values that a judge prompt may name."""
    values = {"question": question.turns[0], "answer": answers[0]}
    for number, (turn, answer) in enumerate(zip(question.turns, answers, strict=False), start=1):
        values |= {f"question_{number}": turn, f"answer_{number}": answer}
    references = question.reference or ()
    return values | {f"ref_answer_{number}": text for number, text in enumerate(references, start=1)}


def local_files(config: MtBenchBenchmark) -> list[str]:
    """The files of `config.data` in the order of FILES; none if they come from the hub.

    Raises DataError.
    """
    if config.data in (None, MINIATURE):
        return []
    return [str(path) for path in _found(Path(config.data))]


def problems(config: MtBenchBenchmark) -> Iterator[str]:
    """The problems of the files in the user's folder."""
    try:
        if config.data not in (None, MINIATURE):
            questions(config, 0)
    except DataError as error:
        yield f"benchmarks.mt_bench.data: {error}"


def calls(config: MtBenchBenchmark, max_tokens: int, first: int | None = None) -> tuple[int, int, int]:
    """The calls of one variant, the tokens of their prompts and of their replies.

    The prompts of second turns contain both answers. Answers have the benchmark's own limit, not
    `max_tokens`.
    """
    count = QUESTIONS
    if files := dict(zip(FILES, local_files(config), strict=False)):
        count = len(Path(files[FILES[0]]).read_text(encoding="utf-8").splitlines())
    count = min(count, first or count)
    prompt = count * 3 * (GRADING + config.max_tokens)
    return 2 * count, prompt, 2 * count * GRADE_TOKENS


def responses(
    config: MtBenchBenchmark, generate: GenerateConfig, first: int | None = None
) -> tuple[int, int]:
    """The number of responses of one variant, and the most tokens that each may have."""
    return 2 * min(QUESTIONS, first or QUESTIONS), config.max_tokens


def gather(config: MtBenchBenchmark, seed: int, result: Path) -> None:
    """Write the result of `questions`. Raises DataError."""
    write_json(result, questions(config, seed))


def questions(config: MtBenchBenchmark, seed: int) -> Questions:
    """Read the files of a folder or a dataset of the hub, or make the miniature's from `seed`.

    Raises DataError if anything differs from the published format.
    """
    if config.data != MINIATURE:
        return _read([Path(path) for path in local_files(config)] or _downloaded(config))
    miniature = importlib.import_module("expoflow.miniature.mt_bench")  # not needed for the user's own files
    with tempfile.TemporaryDirectory() as folder:
        miniature.write(Path(folder), seed)
        return _read(_found(Path(folder)))


def _read(paths: Sequence[Path]) -> Questions:
    """Read the three files, in the order of FILES."""
    questions, prompts, references = (_lines(path) for path in paths)
    answers = {row["question_id"]: row for row in references}
    parsed = [_row(paths[0], row, lambda row: _question(row, answers)) for row in questions]
    twice = [name for name, count in Counter(q.question_id for q in parsed).items() if count > 1]
    if twice or not parsed:
        raise DataError(
            f"{paths[0]}: question_id {twice[0]} stands twice" if twice else f"{paths[0]}: is empty"
        )
    without = [q.question_id for q in parsed if q.category in WITH_REFERENCE and q.reference is None]
    if without:
        raise DataError(
            f"{paths[2]}: no answer to question {without[0]}, which is graded against one; add it"
        )
    return Questions(
        questions=parsed,
        prompts=_prompts(paths[1], prompts),
        sha256s={name: sha256(path) for name, path in zip(FILES, paths, strict=True)},
    )


def _question(row: Mapping[str, Any], answers: Mapping[int, Mapping[str, Any]]) -> Question:
    reference = None
    if row["category"] in WITH_REFERENCE and row["question_id"] in answers:
        reference = tuple(answers[row["question_id"]]["choices"][0]["turns"][:2])
    return Question(
        question_id=row["question_id"],
        category=row["category"],
        turns=tuple(row["turns"]),
        reference=reference,
    )


def _prompts(path: Path, rows: list[dict[str, Any]]) -> dict[str, JudgePrompt]:
    found = {
        row["name"]: _row(
            path, row, lambda row: JudgePrompt(system=row["system_prompt"], template=row["prompt_template"])
        )
        for row in rows
        if row.get("name") in PROMPTS.values()
    }
    if missing := [name for name in PROMPTS.values() if name not in found]:
        raise DataError(f"{path}: no judge prompt '{missing[0]}'; use FastChat's file unchanged")
    for (reference, second), name in PROMPTS.items():  # fails if one of them cannot be filled in
        sample = Question(
            question_id=0, category="", turns=("", ""), reference=("", "") if reference else None
        )
        values = _values(sample, ["", ""] if second else [""])
        _row(path, {"name": name}, lambda row, values=values: found[row["name"]].template.format(**values))
    return found


def _found(folder: Path) -> list[Path]:
    """FILES in the folder or below it. If a file is there several times, the topmost one counts."""
    paths = []
    for name in FILES:
        places = sorted(folder.rglob(name), key=lambda path: (len(path.parts), path))
        if not places:
            raise DataError(
                f"'{folder}' has no {name}; name a folder like FastChat's fastchat/llm_judge/data"
            )
        paths.append(places[0])
    return paths


def _downloaded(config: MtBenchBenchmark) -> list[Path]:
    """Download FILES of a dataset of the hub into the hub's own cache."""
    from expoflow.hub import cache

    def wanted(_: str, sizes: Mapping[str, int]) -> list[str]:
        return [name for name in sizes if f"/{name}".endswith(tuple(f"/{file}" for file in FILES))]

    try:
        _, folder, _ = cache.fetch(config.hub, config.revision, "dataset", wanted)
    except CheckpointError as error:
        raise DataError(
            f"mt_bench: dataset '{config.hub}' cannot be fetched ({error}); correct hub"
        ) from None
    return _found(folder)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON lines ({error})") from None
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: a line is not a JSON object; use FastChat's file unchanged")
    return rows


def _row(path: Path, row: dict[str, Any], make: Callable[[dict[str, Any]], Any]) -> Any:
    try:
        return make(row)
    except (LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: not in FastChat's format ({reason}): {json.dumps(row)[:80]}") from None
