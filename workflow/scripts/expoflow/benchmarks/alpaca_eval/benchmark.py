"""AlpacaEval 2.0: a judge compares every response with a reference's, by the package alpaca_eval.

The set is the file of the reference's outputs, {instruction, output} in the official order. It has
the form of alpaca_eval_gpt4_baseline.json of the dataset tatsu-lab/alpaca_eval. Win rates are in
percent.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expoflow.benchmarks.alpaca_eval import annotator, win_rates
from expoflow.benchmarks.alpaca_eval.files import Question, prompts, read_questions
from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.judge.judge import Judge
from expoflow.benchmarks.judge.verdicts import Accept, JudgeRequest, Reply
from expoflow.benchmarks.metrics import difference, mean
from expoflow.benchmarks.readable import Answer
from expoflow.config.stages import GenerateConfig, SelectConfig
from expoflow.engines import model
from expoflow.errors import JudgeError
from expoflow.files.records import read_jsonl
from expoflow.results import Metric, Scored

# The package's names of the value and the standard error of each metric.
FIGURES = {
    "win_rate": ("win_rate", "standard_error"),
    "lc_win_rate": ("length_controlled_winrate", "lc_standard_error"),
}
REFITS = 400  # resamples of a length-controlled difference; each fits two models in a third of a second


class Judged(Scored):
    """A line of the benchmark's rows: a scored response and its verdict.

    `index` is the position of the question in the set. `preference` is 1 if the reference's output
    is better, 2 if the response is better, and None without a verdict. Lengths are in characters,
    without white space at both ends.
    """

    index: int
    preference: float | None = None
    len_baseline: int
    len_model: int


def run(job: Job) -> None:
    """Generate, score and judge a response to every instruction; write rows and result."""
    settings, path = job.settings, job.inputs["reference"]
    questions, gamed = read_questions(path), job.inputs.get("df_gamed")
    if gamed and (difficulty := job.inputs.get("instruction_difficulty")):
        win_rates.check_difficulty(gamed, difficulty)
    described = annotator.describe(settings.annotator)
    config = decoding(job)
    scored = job.score(prompts(questions), config)
    asked = _Asked(job.judge(settings.judge))
    rows = judge(questions, scored, settings.annotator, asked)
    if all(row.preference is None for row in rows):
        raise JudgeError(f"judge {settings.judge.model}: none of {len(rows)} verdicts came; see the log")
    metrics, basis = measure(rows, gamed)
    job.write(
        rows,
        metrics,
        "alpaca_eval",
        packages=("alpaca_eval", "scikit-learn", "openai"),
        generate=config.model_dump(exclude={"prompts", "engine"}),
        decoding="generate" if settings.generate is None else "benchmarks.alpaca_eval.generate",
        engine=model.chosen(config.engine),
        reward_model=job.config.reward_model,
        reference={"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        annotator=described,
        judge=asked.summary(),
        length_controlled=basis,
    )
    if isinstance(basis, str):
        job.say(f"{job.pair}: {job.variant}: alpaca_eval: lc_win_rate is {basis}")


def run_comparison(comparison: Comparison) -> None:
    """Write the paired differences over instructions."""
    rows = (comparison.rows(variant, Judged) for variant in ("expo", "aligned"))
    metrics, basis = compare(*rows, comparison.inputs.get("df_gamed"), comparison.select)
    comparison.write(metrics, "alpaca_eval", length_controlled=basis)


def readable(inputs: Mapping[str, Path], rows: Path) -> list[Answer]:
    """The responses for human readers (`benchmarks.readable`), each with the judge's preference."""
    questions = read_questions(inputs["reference"])
    return [
        Answer(
            item=row.prompt_id,
            prompt=questions[row.index].instruction,
            verdict=_verdict(row.preference),
            **row.model_dump(
                include={"response", "response_tokens", "finish_reason", "sample", "reward", "quality"}
            ),
        )
        for row in read_jsonl(rows, Judged)
    ]


def _verdict(preference: float | None) -> str:
    if preference is None:
        return "the judge gave no verdict"
    return f"preference {preference:.2f}: 1 is the reference's output, 2 this response"


def compare(
    expo: Sequence[Judged], aligned: Sequence[Judged], gamed: Path | None, config: SelectConfig
) -> tuple[list[Metric], Any]:
    """Differences expo - aligned with bootstrap intervals, and the basis of lc_win_rate.

    Intervals are over instructions. win_rate is over instructions with both verdicts, and
    lc_win_rate is there if it is defined. avg_length, reward, length and unfinished are over
    instructions with both responses.
    """
    after, before = ({row.index: row for row in rows} for rows in (expo, aligned))
    both = [(after[index], before[index]) for index in after if index in before]
    won = [100 * (a.preference - b.preference) for a, b in both if None not in (a.preference, b.preference)]
    new, old = _values([a for a, _ in both]), _values([b for _, b in both])
    others = [difference(name, new[name] - old[name], config) for name in new]
    controlled, basis = _controlled(verdicts(expo), verdicts(aligned), gamed, config)
    return [difference("win_rate", np.array(won), config), *controlled, *others], basis


def _controlled(
    after: pd.DataFrame, before: pd.DataFrame, gamed: Path | None, config: SelectConfig
) -> tuple[list[Metric], Any]:
    """The difference of the length-controlled win rates and its basis, or why there is none.

    The model is fitted again to every resample. The interval is the percentile interval, and there
    is no p-value.
    """
    if reason := win_rates.refusal(after, gamed) or win_rates.refusal(before, gamed):
        return [], f"refused: {reason}"
    value = win_rates.length_controlled(after, gamed) - win_rates.length_controlled(before, gamed)
    resamples = min(config.resamples, REFITS)
    values = win_rates.length_controlled_differences(after, before, gamed, resamples)
    low, high = np.quantile(values, [(1 - config.confidence) / 2, (1 + config.confidence) / 2])
    judged = int((after["preference"].notna() & before["preference"].notna()).sum())
    metric = Metric(
        metric="lc_win_rate",
        value=value,
        standard_error=float(values.std(ddof=1)),
        n=judged,
        low=float(low),
        high=float(high),
    )
    return [metric], win_rates.basis(gamed) | {"resamples": resamples}


def _values(rows: Sequence[Judged]) -> dict[str, np.ndarray]:
    """One number per response for each metric, with or without a verdict.

    There is no reward without a reward model.
    """
    columns = {
        "avg_length": [row.len_model for row in rows],
        "reward": [row.reward for row in rows],
        "length": [row.response_tokens for row in rows],
        "unfinished": [row.finish_reason == "length" for row in rows],
    }
    return {name: np.array(column, float) for name, column in columns.items() if None not in column}


def decoding(job: Job) -> GenerateConfig:
    """The run's decoding settings with the benchmark's overrides; always one response."""
    config = job.config.section(job.pair, "generate")
    own = {} if job.settings.generate is None else job.settings.generate.model_dump(exclude_none=True)
    return GenerateConfig.model_validate(config.model_dump() | own | {"samples": 1})


def judge(
    questions: Sequence[Question], scored: Sequence[Scored], name: str, ask: annotator.Ask
) -> list[Judged]:
    """The verdicts of the annotator `name` on the responses, in the order of the questions.

    White space around a response is removed, as in the package. Questions without a response are
    left out.
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


def verdicts(rows: Sequence[Judged]) -> pd.DataFrame:
    """The rows in the form that `win_rates` expects."""
    columns = ("preference", "len_baseline", "len_model")
    table = pd.DataFrame([row.model_dump(include={"index", *columns}) for row in rows]).set_index("index")
    return table[list(columns)].astype({"preference": float})


def measure(rows: Sequence[Judged], gamed: Path | None) -> tuple[list[Metric], Any]:
    """Metrics of one variant, and the basis of its lc_win_rate, or why there is none.

    The metrics are win_rate, lc_win_rate and avg_length (characters) and, for the same responses,
    reward, length (tokens) and unfinished (share).
    """
    figures = win_rates.win_rates(verdicts(rows), gamed)
    judged = int(figures["n_total"])
    metrics = [
        Metric(metric=name, value=figures[value], standard_error=figures[error], n=judged)
        for name, (value, error) in FIGURES.items()
        if figures[value] is not None
    ]
    metrics += [mean(name, values) for name, values in _values(rows).items()]
    return metrics, figures["length_controlled"]


class _Asked:
    """Ask a judge, and remember requests and replies for the result's provenance."""

    def __init__(self, judge: Judge):
        self.judge = judge
        self.requests: list[JudgeRequest] = []
        self.replies: list[Reply | None] = []

    def __call__(self, requests: list[JudgeRequest], accept: Accept) -> list[Reply | None]:
        replies = self.judge.ask(requests, accept)
        self.requests += requests
        self.replies += replies
        return replies

    def summary(self) -> dict[str, Any]:
        return self.judge.summary(self.requests, self.replies)
