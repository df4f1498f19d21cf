"""AlpacaEval 2.0: a judge compares every response with a reference's, through the package alpaca_eval.

The set is the file of the reference's outputs: {instruction, output} in official order, as
alpaca_eval_gpt4_baseline.json of the dataset tatsu-lab/alpaca_eval. Win rates are in percent.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from expoflow import benchmarks, engines
from expoflow.benchmarks import annotator, win_rates
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.metrics import difference, mean
from expoflow.config import GenerateConfig, SelectConfig
from expoflow.errors import DataError
from expoflow.judge import Judge, Reply, Request
from expoflow.prompts import prompt_id
from expoflow.records import Message, Metric, Prompt, Record, Scored, read_jsonl
from expoflow.verdicts import Accept

# By metric: the package's names of its value and its standard error.
FIGURES = {
    "win_rate": ("win_rate", "standard_error"),
    "lc_win_rate": ("length_controlled_winrate", "lc_standard_error"),
}
REFITS = 400  # resamples of a length-controlled difference; one fits two models: a third of a second


class Question(Record):
    """An instruction, and what the reference answered."""

    instruction: str
    output: str

    def prompt(self) -> Prompt:
        """The instruction as a conversation of one message."""
        messages = [Message(role="user", content=self.instruction)]
        return Prompt(prompt_id=prompt_id(messages), messages=messages)


class Judged(Scored):
    """A line of the benchmark's rows: a scored response and its verdict.

    `index` is the question's place in the set; `preference` 1 where the reference's output is better, 2 where
    the response is, None without a verdict; lengths are in characters, white space at both ends left out.
    """

    index: int
    preference: float | None = None
    len_baseline: int
    len_model: int


def run(job: Job) -> None:
    """Generate and score a response to every instruction, have them judged, and write rows and result."""
    settings, path = job.settings, job.inputs["reference"]
    questions, gamed = read_questions(path), job.inputs.get("df_gamed")
    if gamed and (difficulty := job.inputs.get("instruction_difficulty")):
        win_rates.check_difficulty(gamed, difficulty)
    annotator.find(settings.annotator)
    config = decoding(job)
    scored = job.score(prompts(questions), config)
    asked = _Asked(job.judge(settings.judge))
    rows = judge(questions, scored, settings.annotator, asked)
    metrics, basis = measure(rows, gamed)
    job.write(
        rows,
        metrics,
        path.stem,
        packages=("alpaca_eval", "scikit-learn", "openai"),
        generate=config.model_dump(exclude={"prompts", "engine"}),
        decoding="generate" if settings.generate is None else "benchmarks.alpaca_eval.generate",
        engine=engines.chosen(config.engine),
        reward_model=job.config.reward_model,
        reference={"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        annotator=annotator.describe(settings.annotator),
        judge=asked.summary(),
        length_controlled=basis,
    )
    refused = f"; length-controlled: {basis}" if isinstance(basis, str) else ""
    job.say(f"{job.pair}: {job.variant}: {benchmarks.words(metrics)}{refused}")


def compare(expo: Path, aligned: Path, config: SelectConfig, gamed: Path | None = None) -> list[Metric]:
    """Differences expo - aligned with bootstrap intervals over the instructions that both have a verdict on.

    win_rate, lc_win_rate; avg_length, reward, length, unfinished over all instructions that both answered.
    """
    after, before = ({row.index: row for row in read_jsonl(path, Judged)} for path in (expo, aligned))
    both = [(after[index], before[index]) for index in after if index in before]
    won = [100 * (a.preference - b.preference) for a, b in both if a.preference and b.preference]
    values = {
        "avg_length": [a.len_model - b.len_model for a, b in both],
        "reward": [a.reward - b.reward for a, b in both],
        "length": [a.response_tokens - b.response_tokens for a, b in both],
        "unfinished": [(a.finish_reason == "length") - (b.finish_reason == "length") for a, b in both],
    }
    plain = [difference(name, np.array(column, float), config) for name, column in values.items()]
    controlled = _controlled(verdicts(after.values()), verdicts(before.values()), gamed, config)
    return [difference("win_rate", np.array(won), config), *controlled, *plain]


def _controlled(
    after: pd.DataFrame, before: pd.DataFrame, gamed: Path | None, config: SelectConfig
) -> list[Metric]:
    """The difference of the length-controlled win rates, none where one of them is refused.

    The model is fitted anew to every resample: percentile interval, no p-value.
    """
    if reason := win_rates.refusal(after, gamed) or win_rates.refusal(before, gamed):
        print(f"lc_win_rate is refused: {reason}")
        return []
    value = win_rates.length_controlled(after, gamed) - win_rates.length_controlled(before, gamed)
    resamples = min(config.resamples, REFITS)
    values = win_rates.length_controlled_differences(after, before, gamed, resamples)
    low, high = np.quantile(values, [(1 - config.confidence) / 2, (1 + config.confidence) / 2])
    judged = int((after["preference"].notna() & before["preference"].notna()).sum())
    error = float(values.std(ddof=1))
    return [Metric(metric="lc_win_rate", value=value, standard_error=error, n=judged, low=low, high=high)]


def decoding(job: Job) -> GenerateConfig:
    """The run's own way to generate, with the benchmark's overrides; always one response."""
    config = job.config.section(job.pair, "generate")
    own = {} if job.settings.generate is None else job.settings.generate.model_dump(exclude_none=True)
    return GenerateConfig.model_validate(config.model_dump() | own | {"samples": 1})


def read_questions(path: Path) -> list[Question]:
    """The set, in the file's order: a JSON list, or JSON lines. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip()[:1] == "[" else list(map(json.loads, text.splitlines()))
        questions = [Question(**{name: row[name] for name in Question.model_fields}) for row in rows]
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; correct the path") from None
    except (ValueError, LookupError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: not a list of {{instruction, output}} objects ({error!r})") from None
    if not questions:
        raise DataError(f"{path}: no questions; give the reference's outputs")
    return questions


def prompts(questions: Sequence[Question]) -> list[Prompt]:
    """What is to be answered: every instruction once."""
    asked = (question.prompt() for question in questions)
    return list({prompt.prompt_id: prompt for prompt in asked}.values())


def judge(
    questions: Sequence[Question], scored: Sequence[Scored], name: str, ask: annotator.Ask
) -> list[Judged]:
    """The verdicts of the annotator `name` on the responses, in the order of the questions.

    White space around a response is left out, as the package does it; so is a question without a response.
    """
    responses = {row.prompt_id: row for row in scored}
    answered = [
        (index, question, responses[question.prompt().prompt_id])
        for index, question in enumerate(questions)
        if question.prompt().prompt_id in responses
    ]
    texts = [row.response.strip() for _, _, row in answered]
    preferences = annotator.preferences(
        [question.instruction for _, question, _ in answered],
        [question.output for _, question, _ in answered],
        texts,
        name,
        ask,
    )
    return [
        Judged(
            **row.model_dump(),
            index=index,
            preference=None if math.isnan(preference) else preference,
            len_baseline=len(question.output),
            len_model=len(text),
        )
        for (index, question, row), text, preference in zip(answered, texts, preferences, strict=True)
    ]


def verdicts(rows: Iterable[Judged]) -> pd.DataFrame:
    """The rows in the form that `win_rates` takes."""
    columns = ("preference", "len_baseline", "len_model")
    table = pd.DataFrame([row.model_dump(include={"index", *columns}) for row in rows]).set_index("index")
    return table[list(columns)].astype({"preference": float})


def measure(rows: Sequence[Judged], gamed: Path | None) -> tuple[list[Metric], Any]:
    """Metrics of one variant, and what its length-controlled win rate rests on, or why there is none.

    win_rate, lc_win_rate; avg_length (characters), and of the same responses reward, length (tokens) and
    unfinished (share).
    """
    figures = win_rates.win_rates(verdicts(rows), gamed)
    judged = int(figures["n_total"])
    metrics = [
        Metric(metric=name, value=figures[value], standard_error=figures[error], n=judged)
        for name, (value, error) in FIGURES.items()
        if figures[value] is not None
    ]
    values = {
        "avg_length": [row.len_model for row in rows],
        "reward": [row.reward for row in rows],
        "length": [row.response_tokens for row in rows],
        "unfinished": [row.finish_reason == "length" for row in rows],
    }
    metrics += [mean(name, np.array(column, float)) for name, column in values.items()]
    return metrics, figures["length_controlled"]


class _Asked:
    """Asks a judge, and keeps what was asked and answered for the result's provenance."""

    def __init__(self, judge: Judge):
        self.judge = judge
        self.requests: list[Request] = []
        self.replies: list[Reply | None] = []

    def __call__(self, requests: list[Request], accept: Accept) -> list[Reply | None]:
        replies = self.judge.ask(requests, accept)
        self.requests += requests
        self.replies += replies
        return replies

    def summary(self) -> dict[str, Any]:
        return self.judge.summary(self.requests, self.replies)
