"""Direct preference optimisation of the miniature: train theta1 from theta0."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import LlamaForCausalLM

from expoflow.miniature import model, writers
from expoflow.miniature.world import generator
from expoflow.training.loop import steps

WARMUP = 0.1  # of the steps


@steps.deterministic()
def train(
    out: Path,
    *,
    seed: int,
    world: int | None = None,
    base: Path | None = None,
    prompts: str,
    examples: int,
    fraction: float,
    epochs: int,
    learning_rate: float,
    beta: float,
    annotator_temperature: float,
    length_bias: float,
    label_noise: float,
    until: float = 1.0,
    progress: steps.Progress = print,
) -> dict[str, float]:
    """Train the checkpoint `base`, which is also the reference, on pairs; save it to `out`.

    The data are the first `fraction` of `examples` pairs, on prompts of the split `prompts`. `seed`
    is that of their order; `world` is that of the data and defaults to `seed`. Training stops after
    a share `until` of the steps. Returns steps and loss.
    """
    pairs = data(
        seed,
        seed if world is None else world,
        prompts=prompts,
        examples=examples,
        fraction=fraction,
        annotator_temperature=annotator_temperature,
        length_bias=length_bias,
        label_noise=label_noise,
    )
    lm = model.load(base)
    metrics = fit(
        lm,
        pairs,
        seed,
        epochs=epochs,
        learning_rate=learning_rate,
        beta=beta,
        name="dpo",
        progress=progress,
        until=until,
    )
    model.save(lm, out)
    return metrics


def data(
    seed: int,
    world: int,
    *,
    prompts: str,
    examples: int,
    fraction: float,
    annotator_temperature: float,
    length_bias: float,
    label_noise: float,
    **others: Any,
) -> list[writers.Pair]:
    """Return pairs of the miniature's writers."""
    return writers.preference_pairs(
        round(examples * fraction), world, prompts, annotator_temperature, length_bias, label_noise
    )


def fit(
    lm: LlamaForCausalLM,
    pairs: Sequence[writers.Pair],
    seed: int,
    *,
    epochs: int,
    learning_rate: float,
    beta: float,
    name: str,
    progress: steps.Progress,
    until: float = 1.0,
) -> dict[str, float]:
    """Train `lm` on pairs, with its initial weights as the reference.

    The loss is -log sigmoid(beta * margin). The margin is the chosen response's log-ratio to the
    reference minus the rejected one's (Rafailov et al. 2023, equation 7).
    """
    prompts = [pair.prompt for pair in pairs]
    rows = steps.table(prompts * 2, [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
    reference = _logps(lm, rows)
    longest = rows.length.view(2, -1).amax(0)

    def loss(index):
        both = torch.cat([index, index + len(pairs)])
        return -logsigmoid(
            beta * _margins(steps.sequence_logps(lm, rows.rows(both)) - reference[both])
        ).mean()

    order = steps.batches(longest, epochs, generator(seed, f"{name} batches"))
    settings = {"learning_rate": learning_rate, "warmup": WARMUP, "until": until}
    return steps.fit(lm, order, loss, **settings, name=name, progress=progress)


def _margins(log_ratios: torch.Tensor) -> torch.Tensor:
    """Return chosen minus rejected; the first half of the rows is chosen."""
    chosen, rejected = log_ratios.view(2, -1)
    return chosen - rejected


@torch.no_grad()
def _logps(lm, rows: steps.Table) -> torch.Tensor:
    """Return the log-probability of every response, in the order of the table."""
    result = torch.empty(len(rows.length))
    for index in rows.length.argsort(stable=True).split(4 * steps.BATCH):
        result[index] = steps.sequence_logps(lm, rows.rows(index))
    return result
