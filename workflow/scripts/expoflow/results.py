"""What every JSON result looks like."""

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
    """results/models/{model}.json: where a model came from and exactly which bytes it is.

    results/datasets/{dataset}.json has the same form, with the dataset's name as `model`.

    `folder` is where its files lie, relative to the Snakemake directory where it is inside;
    `files` are all files of the checkpoint by their name in that folder; `license` is what the card of a hub
    model states.
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
    """An image of a message: `data` is its file in base64, `sha256` that of the file's bytes."""

    sha256: str
    data: str


class Message(Record):
    """One chat message; its `images`, if it has any, stand before its text."""

    role: str
    content: str
    images: list[Image] | None = None


class Prompt(Record):
    """A line of results/prompts/{prompts}.jsonl; `meta` is what a checker of responses needs to know."""

    prompt_id: str
    messages: list[Message]
    meta: dict[str, Any] | None = None

    def has_images(self) -> bool:
        """Whether a message shows images."""
        return any(message.images for message in self.messages)

    def text(self) -> "Prompt":
        """The prompt without its images, under the same id."""
        if not self.has_images():
            return self
        bare = [message.model_copy(update={"images": None}) for message in self.messages]
        return self.model_copy(update={"messages": bare})


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a set. Raises DataError for a file that is not whole, or in which a prompt stands twice."""
    prompts = read_jsonl(path, Prompt)
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.prompt_id in seen:
            raise DataError(
                f"{path}: prompt {prompt.prompt_id} stands there twice; delete the file and run snakemake again"
            )
        seen.add(prompt.prompt_id)
    return prompts


class Generation(Record):
    """A line of a generations file: sample `sample` of prompt `prompt_id`, drawn with `seed` by `engine`.

    `response_tokens` are those without the stop token. `stop_token` ended the response; there is none if it was cut off.
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
    """A generation with its reward, where there is a reward model; on a miniature's prompts also true quality and correctness."""

    reward: float | None = None
    quality: float | None = None
    correct: bool | None = None


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


class Metric(Record):
    """One figure of a benchmark with its standard error over n prompts, which one prompt has not; differences have an interval."""

    metric: str
    value: float
    standard_error: Annotated[float | None, BeforeValidator(_known)] = None
    n: int
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


class BenchmarkResult(Record):
    """results/pairs/{pair}/benchmarks/{variant}/{benchmark}.json; variant `expo-aligned` is the difference."""

    pair: str
    variant: str
    benchmark: str
    prompts: str
    metrics: list[Metric]
    provenance: dict[str, Any]

    def metric(self, name: str) -> Metric:
        """One of the metrics. Raises DataError if it is not there."""
        for metric in self.metrics:
            if metric.metric == name:
                return metric
        raise DataError(
            f"{self.pair}: benchmark {self.benchmark} of {self.variant} has no {name}; delete its result and run snakemake again"
        )


class RewardCheckResult(Record):
    """results/models/{model}.rewardbench.json: how often a reward model prefers the better response."""

    model: str
    metrics: list[Metric]
    provenance: dict[str, Any]


class Best(Record):
    """results/pairs/{pair}/best.json: the chosen alpha and why; no reward and gain without a reward model.

    `gain_low` and `gain_high` are of an interval that holds for all alphas of the grid at once; in a file of an earlier
    version, which has no `prompts`, for the chosen one alone.
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
    """The interval of the gain as if no other alpha had been tried."""
    optimism: float | None = None
    """By how much the change at the chosen alpha looks better than it is since it was chosen: the bootstrap's estimate."""
    prompts: int | None = None
    """How many prompts chose alpha."""
    chosen_share: float
    edge: bool
    reason: str
    warnings: list[str] = []
    """Of what the responses were: alphas that were left out, and doubts; `reason` has them too."""
    others: dict[str, str] = {}
    """The alpha that each criterion of `select.compare` would have chosen on the same responses."""
    labelled_by: list[str] = []
    """The reward models that labelled the aligned model's training data."""

    def digest(self) -> str:
        """What stands for this choice, and for all that made it."""
        return json_digest(self.model_dump(mode="json", exclude_defaults=True))


class Certificate(Record):
    """results/pairs/{pair}/certificate.json: the gain of expo over aligned on prompts that took no part in the choice.

    If there are none, `held_out` is false, and there is no gain. `choice` is the digest of the best.json that is judged, `measure` is what
    the gain is of, a name of `selection.criteria`. `looks` says how many results on these prompts this folder has seen, this one included.
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
    """Prompts of `judged_on` that do not count, since they chose alpha too."""
    looks: int = 0
    rehearsal: int | None = None
    """Of a rehearsal: how many prompts of every set it takes at most (`limit` of the config)."""


def read_certificate(path: Path, best: Best) -> Certificate | None:
    """The certificate of a choice; None if it is not there, as in the results of an earlier version, or is of another choice."""
    if not path.exists():
        return None
    certificate = read_json(path, Certificate)
    require_own(path, dict(certificate), {"pair": of_pair(path)})
    return certificate if certificate.choice == best.digest() else None
