"""Supervised fine-tuning of the miniature: train theta0."""

from pathlib import Path
from typing import Any

from expoflow.miniature import model
from expoflow.miniature.world import generator
from expoflow.miniature.writers import Example, sft_examples
from expoflow.training.loop import steps

WARMUP = 0.05  # of the steps


@steps.deterministic()
def train(
    out: Path,
    *,
    seed: int,
    world: int | None = None,
    base: Path | None = None,
    size: str = "small",
    examples: int,
    epochs: int,
    learning_rate: float,
    until: float = 1.0,
    progress: steps.Progress = print,
) -> dict[str, float]:
    """Train a language model on the personas' responses and save it to the folder `out`.

    It starts from random weights, or from the checkpoint `base`. `seed` is that of the weights and
    the order; `world` is that of the data and defaults to `seed`. The loss is the mean over
    response tokens. Training stops after a share `until` of the steps. Returns steps and loss (nats
    per token).
    """
    said = data(seed, seed if world is None else world, examples=examples)
    rows = steps.table([example.prompt for example in said], [example.response for example in said])
    lm = model.load(base) if base else model.new(seed, size)
    metrics = fit_language(lm, rows, seed, "sft", epochs, learning_rate, progress, until)
    model.save(lm, out)
    return metrics


def data(seed: int, world: int, *, examples: int, **others: Any) -> list[Example]:
    """Return responses to imitate."""
    return sft_examples(examples, world)


def fit_language(
    lm, rows: steps.Table, seed, name, epochs, learning_rate, progress, until=1.0
) -> dict[str, float]:
    """Train on the next tokens of the responses in a table."""

    def loss(index):
        return -steps.token_logps(lm, rows.rows(index))[0].mean()

    order = steps.batches(rows.length, epochs, generator(seed, f"{name} batches"))
    settings = {"learning_rate": learning_rate, "warmup": WARMUP, "until": until}
    return steps.fit(lm, order, loss, **settings, name=name, progress=progress)
