"""What a job asks of the process that holds a model between checkpoints; imports no torch."""

from collections.abc import Iterator
from typing import Any

from expoflow.config.stages import GenerateConfig
from expoflow.data.preferences import Preference
from expoflow.engines.model import Model
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.files import hashing
from expoflow.files.records import Record
from expoflow.hosts import client
from expoflow.hosts.task import Task
from expoflow.results import Prompt


class TheoryTask(Record):
    """The arguments of a "theory" task.

    The weights of `model` are sums of share times corner. At all points of `margins` the log-probabilities of both
    responses to every preference are wanted, at those of `responses` answers to the prompts; with `towards`, the
    shares of a direction, also how fast all these log-probabilities change at the first point of each.
    """

    model: Model
    corners: tuple[Streamed, ...]
    margins: tuple[tuple[float, ...], ...] = ()
    preferences: tuple[Preference, ...] = ()
    responses: tuple[tuple[float, ...], ...] = ()
    prompts: tuple[Prompt, ...] = ()
    config: GenerateConfig
    towards: tuple[float, ...] | None = None


def ask(ask: TheoryTask) -> Iterator[dict[str, Any]]:
    """The rows of `serve.measure`, as they get ready."""
    task = Task(kind="theory", key=key(ask), arguments=ask.model_dump(mode="json"))
    for found in client.run(lambda: task):
        yield from found


def key(ask: TheoryTask) -> str:
    """What makes it another loaded model."""
    return hashing.json_digest(ask.model_dump(mode="json", include={"model", "corners"}))


def parents(model: Model) -> tuple[Streamed, Streamed]:
    """theta0 and theta1, as they are, of a model that is streamed from them."""
    options = Options(vocabulary=model.streamed.options.vocabulary)
    return tuple(
        model.streamed.model_copy(update={"alpha": alpha, "options": options}) for alpha in (-1.0, 0.0)
    )
