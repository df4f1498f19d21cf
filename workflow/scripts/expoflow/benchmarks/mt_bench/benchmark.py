"""MT-Bench: answers to two-turn questions, each graded from 1 to 10 by a judge.

This is FastChat's single-answer grading on the openai package, with FastChat's temperatures, judge
prompts and parsing of verdicts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.judge.verdicts import JudgeRequest, Reply, text
from expoflow.benchmarks.metrics import difference, mean
from expoflow.benchmarks.mt_bench.files import Question, Questions, judge_messages
from expoflow.benchmarks.readable import Answer
from expoflow.config.stages import GenerateConfig, SelectConfig
from expoflow.data.prompts import prompt_id
from expoflow.errors import JudgeError
from expoflow.files.records import Record, read_json, read_jsonl
from expoflow.results import Generation, Message, Metric, Prompt

TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}  # 0 for other categories
TOP_K = 50  # FastChat's models sampled with this, the default of transformers
JUDGE = {"temperature": 0, "max_tokens": 2048}
VERDICTS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
LOWEST, HIGHEST = 1, 10


class Graded(Record):
    """A line of mt_bench.generations.jsonl: an answer and its grade.

    A missing grade has neither score nor judgment.
    """

    question_id: int
    category: str
    turn: int
    response: str
    response_tokens: int
    finish_reason: str
    engine: str
    score: float | None = None
    judgment: str | None = None


def run(job: Job) -> None:
    """Answer and grade.

    A missing grade is left out of the means, and counted in the result. Raises JudgeError if no
    grade came at all.
    """
    data = read_json(job.inputs["data"], Questions)
    answers = answer(data.questions, job.settings.seed, job.settings.max_tokens, job)
    asked = [
        (question, turn)
        for question in data.questions
        for turn in (1, 2)
        if turn <= len(answers[question.question_id])
    ]
    requests = [request(data, question, answers[question.question_id][:turn]) for question, turn in asked]
    judge = job.judge(job.settings.judge)
    replies = judge.ask(requests, accept=lambda reply: score(reply) is not None)
    if requests and not any(replies):
        raise JudgeError(
            f"judge {job.settings.judge.model}: none of {len(requests)} grades came; see the log"
        )
    rows = [
        _graded(question, turn, answers[question.question_id][turn - 1], reply)
        for (question, turn), reply in zip(asked, replies, strict=True)
    ]
    job.write(
        rows,
        measure(rows),
        "mt_bench",
        ("openai",),
        judge=judge.summary(requests, replies) | JUDGE,
        files=data.sha256s,
        unanswered=2 * len(data.questions) - len(rows),
        generate={
            "temperatures": TEMPERATURES,
            "top_k": TOP_K,
            "max_tokens": job.settings.max_tokens,
            "seed": job.settings.seed,
        },
    )


def run_comparison(comparison: Comparison) -> None:
    """Write the paired differences over questions."""
    rows = (comparison.rows(variant, Graded) for variant in ("expo", "aligned"))
    comparison.write(compare(*rows, comparison.select), "mt_bench")


def readable(inputs: Mapping[str, Path], rows: Path) -> list[Answer]:
    """The answers for human readers (`benchmarks.readable`), one per turn, with judgments."""
    questions = {each.question_id: each for each in read_json(inputs["data"], Questions).questions}
    return [
        Answer(
            item=f"{row.question_id}.{row.turn}",
            prompt=_asked(questions[row.question_id].turns[: row.turn]),
            response=row.response,
            response_tokens=row.response_tokens,
            finish_reason=row.finish_reason,
            verdict="no grade" if row.score is None else f"grade {row.score:g} of {HIGHEST}",
            judgment=row.judgment,
        )
        for row in read_jsonl(rows, Graded)
    ]


def _asked(turns: Sequence[str]) -> str:
    """The questions so far, as one text. The text of a first turn is that of a prompt in a set."""
    if len(turns) == 1:
        return turns[0]
    return "\n\n".join(f"turn {turn}: {asked}" for turn, asked in enumerate(turns, start=1))


def answer(
    questions: Sequence[Question], seed: int, max_tokens: int, job: Job
) -> dict[int, list[Generation]]:
    """The answers to both turns, by question_id.

    The second turn's conversation contains the first answer. A turn that was skipped because it is
    too long (generate.too_long) has no answer.
    """
    generate = job.config.section(job.pair, "generate")
    answers: dict[int, list[Generation]] = {question.question_id: [] for question in questions}
    for turn in (1, 2):
        for temperature in sorted({TEMPERATURES.get(question.category, 0.0) for question in questions}):
            config = GenerateConfig(
                engine=generate.engine, too_long=generate.too_long, temperature=temperature, top_k=TOP_K, top_p=1,
                presence_penalty=0, frequency_penalty=0, seed=seed, max_tokens=max_tokens,
            )  # fmt: skip
            prompts = {
                question.question_id: conversation(question, answers[question.question_id])
                for question in questions
                if TEMPERATURES.get(question.category, 0.0) == temperature
                and len(answers[question.question_id]) == turn - 1
            }
            distinct = {prompt.prompt_id: prompt for prompt in prompts.values()}
            rows = job.generate(
                list(distinct.values()), config, f"answers to turn {turn} at temperature {temperature:g}"
            )
            by_prompt = {row.prompt_id: row for row in rows}
            for question_id, prompt in prompts.items():
                if prompt.prompt_id in by_prompt:
                    answers[question_id].append(by_prompt[prompt.prompt_id])
    return answers


def conversation(question: Question, answers: Sequence[Generation]) -> Prompt:
    """The conversation that ends in the question's next turn, after those that have an answer."""
    messages = []
    for turn, given in zip(question.turns, answers, strict=False):
        messages += [Message(role="user", content=turn), Message(role="assistant", content=given.response)]
    messages.append(Message(role="user", content=question.turns[len(answers)]))
    return Prompt(prompt_id=prompt_id(messages), messages=messages)


def request(data: Questions, question: Question, answers: Sequence[Generation]) -> JudgeRequest:
    """The request to the judge: to grade the last of the answers."""
    return {"messages": judge_messages(data, question, [given.response for given in answers]), **JUDGE}


def score(reply: Reply) -> float | None:
    """The grade in a judgment: `[[x]]`, else `[x]`, from 1 to 10; None if there is none."""
    said = text(reply)
    found = next((match for pattern in VERDICTS if (match := pattern.search(said))), None)
    value = float(found[1]) if found else None
    return value if value is not None and LOWEST <= value <= HIGHEST else None


def measure(rows: Sequence[Graded]) -> list[Metric]:
    """The mean over both turns (`score`), each turn and each category.

    Standard errors are over questions.
    """
    return [
        mean(name, np.array(list(_by_question(chosen).values()))) for name, chosen in _parts(rows).items()
    ]


def compare(expo: Sequence[Graded], aligned: Sequence[Graded], config: SelectConfig) -> list[Metric]:
    """Differences expo - aligned of the same metrics, over the turns that have a grade in both."""
    common = {_place(row) for row in expo if row.score is not None}
    common &= {_place(row) for row in aligned if row.score is not None}
    after, before = (_parts([row for row in rows if _place(row) in common]) for rows in (expo, aligned))
    differences = []
    for name in after:
        new, old = _by_question(after[name]), _by_question(before[name])
        differences.append(difference(name, np.array([new[key] - old[key] for key in new]), config))
    return differences


def _graded(question: Question, turn: int, given: Generation, reply: Reply | None) -> Graded:
    return Graded(
        question_id=question.question_id,
        category=question.category,
        turn=turn,
        response=given.response,
        response_tokens=given.response_tokens,
        finish_reason=given.finish_reason,
        engine=given.engine,
        score=reply and score(reply),
        judgment=reply and text(reply),
    )


def _place(row: Graded) -> tuple[int, int]:
    return row.question_id, row.turn


def _parts(rows: Sequence[Graded]) -> dict[str, list[Graded]]:
    """The graded rows of each metric, which is their mean. Metrics without rows are left out."""
    graded = [row for row in rows if row.score is not None]
    parts = {"score": graded}
    parts |= {f"turn_{turn}": [row for row in graded if row.turn == turn] for turn in (1, 2)}
    parts |= {
        category: [row for row in graded if row.category == category]
        for category in dict.fromkeys(row.category for row in graded)
    }
    return {name: chosen for name, chosen in parts.items() if chosen}


def _by_question(rows: Iterable[Graded]) -> dict[int, float]:
    """The mean grade of every question."""
    scores: dict[int, list[float]] = {}
    for row in rows:
        scores.setdefault(row.question_id, []).append(row.score)
    return {question_id: float(np.mean(values)) for question_id, values in scores.items()}
