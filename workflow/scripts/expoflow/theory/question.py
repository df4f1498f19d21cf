"""What a job asks of the process that holds a model between checkpoints.

This module imports no torch.
"""

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

    The weights of `model` are sums of share times corner. At the points of `margins`, the task
    computes log-probabilities of both responses to every preference. At the points of `responses`,
    it generates answers to the prompts. `towards` has the shares of a direction; with it, the task
    also computes the derivatives of these log-probabilities at the first point of each list.
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
    """Yield the rows of `theory.answers.answer` as they are ready."""
    task = Task(kind="theory", key=key(ask), arguments=ask.model_dump(mode="json"))
    for found in client.run(lambda: task):
        yield from found


def key(ask: TheoryTask) -> str:
    """Return a digest that changes if another model must be loaded."""
    return hashing.json_digest(ask.model_dump(mode="json", include={"model", "corners"}))


def parents(model: Model) -> tuple[Streamed, Streamed]:
    """Return unchanged theta0 and theta1 of a model that is streamed from them."""
    options = Options(vocabulary=model.streamed.options.vocabulary)
    return tuple(
        model.streamed.model_copy(update={"alpha": alpha, "options": options}) for alpha in (-1.0, 0.0)
    )
