"""The form of every JSON result."""

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from expoflow.errors import DataError
from expoflow.files.hashing import json_digest
from expoflow.files.records import Record, read_json, read_jsonl, require_own
from expoflow.paths import of_pair


class File(Record):
    """One file of a checkpoint: size in bytes, sha256 in hexadecimal."""

    size: int
    sha256: str


class Manifest(Record):
    """results/models/{model}.json: where a model came from, and its exact bytes.

    results/datasets/{dataset}.json has the same form, with the dataset's name as `model`.

    `folder` holds its files; the path is relative if the folder is inside the Snakemake directory.
    `files` are all files of the checkpoint, by their name in that folder. `license` is the licence
    that the card of a hub model states.
    """

    model: str
    source: dict[str, Any]
    revision: str | None = None
    folder: str
    files: dict[str, File]
    license: dict[str, str] | None = None
    provenance: dict[str, Any]

    def sha256s(self) -> dict[str, str]:
        """sha256 by file name."""
        return {name: file.sha256 for name, file in self.files.items()}


class Image(Record):
    """An image of a message: `data` is the file in base64, `sha256` the hash of the file's
    bytes."""

    sha256: str
    data: str


class Message(Record):
    """One chat message. Its `images`, if it has any, come before its text."""

    role: str
    content: str
    images: list[Image] | None = None


class Prompt(Record):
    """A line of results/prompts/{prompts}.jsonl; `meta` is data for checking responses."""

    prompt_id: str
    messages: list[Message]
    meta: dict[str, Any] | None = None

    def has_images(self) -> bool:
        """Whether any message has images."""
        return any(message.images for message in self.messages)

    def text(self) -> "Prompt":
        """The prompt without its images, under the same id."""
        if not self.has_images():
            return self
        bare = [message.model_copy(update={"images": None}) for message in self.messages]
        return self.model_copy(update={"messages": bare})


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a set. Raises DataError for an incomplete file or a repeated prompt."""
    prompts = read_jsonl(path, Prompt)
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.prompt_id in seen:
            raise DataError(
                f"{path}: prompt {prompt.prompt_id} occurs twice; delete the file and run snakemake again"
            )
        seen.add(prompt.prompt_id)
    return prompts


class Generation(Record):
    """A line of a generations file: sample `sample` of prompt `prompt_id`, drawn with `seed` by
    `engine`.

    `response_tokens` does not count the stop token. `stop_token` is the token that ended the
    response, or None if the response was cut off.
    """

    prompt_id: str
    sample: int
    seed: int
    response: str
    response_tokens: int
    finish_reason: str
    stop_token: int | None = None
    engine: str


class Scored(Generation):
    """A generation with its reward, if there is a reward model.

    On the miniature's prompts it also has true quality and correctness.
    """

    reward: float | None = None
    quality: float | None = None
    correct: bool | None = None


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


class Metric(Record):
    """One metric of a benchmark, with its standard error over n prompts.

    There is no standard error if n is 1. Differences also have an interval.
    """

    metric: str
    value: float
    standard_error: Annotated[float | None, BeforeValidator(_known)] = None
    n: int
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


class BenchmarkResult(Record):
    """results/pairs/{pair}/benchmarks/{variant}/{benchmark}.json; variant `expo-aligned` is the
    difference."""

    pair: str
    variant: str
    benchmark: str
    prompts: str
    metrics: list[Metric]
    provenance: dict[str, Any]

    def metric(self, name: str) -> Metric:
        """The metric `name`. Raises DataError if it is missing."""
        for metric in self.metrics:
            if metric.metric == name:
                return metric
        raise DataError(
            f"{self.pair}: benchmark {self.benchmark} of {self.variant} has no {name}; delete its result and run snakemake again"
        )


class RewardCheckResult(Record):
    """results/models/{model}.rewardbench.json: how often a reward model prefers the better
    response."""

    model: str
    metrics: list[Metric]
    provenance: dict[str, Any]


class Best(Record):
    """results/pairs/{pair}/best.json: the chosen alpha, and why it was chosen.

    Without a reward model it has no reward and gain. `gain_low` and `gain_high` are an interval
    that holds for all alphas of the grid at once. In files of earlier versions, which have no
    `prompts`, it holds for the chosen alpha only.
    """

    pair: str
    alpha: str
    certified: bool
    reward: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    gain_pointwise_low: float | None = None
    gain_pointwise_high: float | None = None
    """The upper end of the interval of the gain as if no other alpha had been tried."""
    optimism: float | None = None
    """The selection bias: how much the change at the chosen alpha is overestimated because it was
    chosen. Estimated by bootstrap."""
    prompts: int | None = None
    """Number of prompts that chose alpha."""
    chosen_share: float
    edge: bool
    reason: str
    warnings: list[str] = []
    """Warnings about the responses: alphas that were left out, and doubts. `reason` includes
    them."""
    others: dict[str, str] = {}
    """The alpha that each criterion of `select.compare` would have chosen on the same responses."""
    labelled_by: list[str] = []
    """The reward models that labelled the aligned model's training data."""

    def digest(self) -> str:
        """A digest that identifies this choice and everything behind it."""
        return json_digest(self.model_dump(mode="json", exclude_defaults=True))


class Certificate(Record):
    """results/pairs/{pair}/certificate.json: the gain of expo over aligned on prompts that took no
    part in the choice.

    If there are no such prompts, `held_out` is false, and there is no gain. `choice` is the digest
    of the best.json that is judged. `measure` is the quantity that the gain measures, a name of
    `selection.criteria`. `looks` is the number of results on these prompts that this folder has
    seen, including this one.
    """

    pair: str
    alpha: str
    choice: str
    held_out: bool
    certified: bool
    measure: str | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float
    chosen_on: str
    judged_on: str | None = None
    prompts: int = 0
    left_out: int = 0
    """Number of prompts of `judged_on` that were left out because they chose alpha too."""
    looks: int = 0
    rehearsal: int | None = None
    """For a rehearsal: the maximum number of prompts per set (`limit` of the config)."""


def read_certificate(path: Path, best: Best) -> Certificate | None:
    """The certificate of a choice, or None.

    None means that the file is missing, as in results of earlier versions, or that it judges
    another choice.
    """
    if not path.exists():
        return None
    certificate = read_json(path, Certificate)
    require_own(path, dict(certificate), {"pair": of_pair(path)})
    return certificate if certificate.choice == best.digest() else None
