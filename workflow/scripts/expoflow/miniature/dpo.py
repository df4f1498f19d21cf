"""Direct preference optimisation of the miniature: theta1, from theta0."""

from pathlib import Path

import torch
from torch.nn.functional import logsigmoid

from expoflow.miniature import loop, model
from expoflow.miniature.world import generator
from expoflow.miniature.writers import preference_pairs


@loop.deterministic()
def train(
    out: Path,
    *,
    seed: int,
    base: Path | None = None,
    examples: int = 6000,
    fraction: float = 1.0,
    epochs: int = 1,
    learning_rate: float = 5e-5,
    beta: float = 0.01,
    warmup: float = 0.1,
    progress: loop.Progress = print,
) -> dict[str, float]:
    """Train the SFT checkpoint `base`, which is the reference too, on pairs; save it to the folder `out`.

    The data are the first `fraction` of `examples` pairs. Loss: -log sigmoid(beta * margin), margin =
    the chosen response's log-ratio to the reference less the rejected one's (Rafailov et al. 2023,
    equation 7). Returns steps and loss.
    """
    lm = model.load(base)
    pairs = preference_pairs(round(examples * fraction), seed)
    prompts = [pair.prompt for pair in pairs]
    rows = loop.table(prompts * 2, [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
    reference = _logps(lm, rows)
    longest = rows.length.view(2, -1).amax(0)

    def loss(index):
        both = torch.cat([index, index + len(pairs)])
        return -logsigmoid(beta * _margins(loop.sequence_logps(lm, rows.rows(both)) - reference[both])).mean()

    order = loop.batches(longest, epochs, generator(seed, "dpo batches"))
    metrics = loop.fit(
        lm, order, loss, learning_rate=learning_rate, warmup=warmup, name="dpo", progress=progress
    )
    model.save(lm, out)
    return metrics


def _margins(log_ratios: torch.Tensor) -> torch.Tensor:
    """Chosen less rejected; the first half of the rows is chosen."""
    chosen, rejected = log_ratios.view(2, -1)
    return chosen - rejected


@torch.no_grad()
def _logps(lm, rows: loop.Table) -> torch.Tensor:
    """Log-probability of every response, in the order of the table."""
    result = torch.empty(len(rows.length))
    for index in rows.length.argsort(stable=True).split(4 * loop.BATCH):
        result[index] = loop.sequence_logps(lm, rows.rows(index))
    return result
