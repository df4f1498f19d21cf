"""The miniature's reward model: a LlamaForSequenceClassification with one raw logit."""

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import LlamaForSequenceClassification

from expoflow.errors import ExpoflowError
from expoflow.miniature import model
from expoflow.miniature.world import generator
from expoflow.miniature.writers import Pair, correct_cores, reward_pairs
from expoflow.training.loop import steps
from expoflow.training.loop.sft import fit_language

WARMUP = 0.05  # of the steps
HELD_OUT = 500  # pairs on which accuracy is measured
CORES = 0.6  # right answers to learn the facts from, as a share of `examples`
CORES_EPOCHS, CORES_LEARNING_RATE = 4, 6e-3
CENTER = 1e-3  # weight of the mean squared reward in the loss: keeps rewards near 0


@steps.deterministic()
def train(
    out: Path,
    *,
    seed: int,
    world: int | None = None,
    base: Path | None = None,
    examples: int,
    epochs: int,
    learning_rate: float,
    cores: float = CORES,
    cores_epochs: int = CORES_EPOCHS,
    cores_learning_rate: float = CORES_LEARNING_RATE,
    progress: steps.Progress = print,
) -> dict[str, float]:
    """Train a reward model on `examples` pairs and save it to the folder `out`.

    First it learns the facts as a language model, from `cores` * examples right answers. Then it
    learns to judge by the Bradley-Terry loss, -log sigmoid(chosen - rejected) + 1e-3 * reward^2. It
    never sees a prompt of dev, test or train. `world` is the seed of the data and defaults to
    `seed`. Returns steps, loss and accuracy on held-out pairs.
    """
    if base is not None:
        raise ExpoflowError(f"the miniature's reward model starts from random weights; remove `from: {base}`")
    world = seed if world is None else world
    lm = model.new(seed + 1)  # not the SFT model's initialisation
    facts = correct_cores(round(examples * cores), world)
    rows = steps.table([fact.prompt for fact in facts], [fact.response for fact in facts])
    fit_language(lm, rows, seed, "reward facts", cores_epochs, cores_learning_rate, progress)

    rm = _classifier(lm)
    rows = _table(data(seed, world, examples=examples))
    held_out = _table(reward_pairs(HELD_OUT, world, "reward held-out"))

    def loss(index):
        chosen, rejected = rewards(rm, rows.rows(torch.cat([index, index + examples]))).view(2, -1)
        return (
            -logsigmoid(chosen - rejected).mean() + CENTER * (chosen.square() + rejected.square()).mean() / 2
        )

    order = steps.batches(rows.length.view(2, -1).amax(0), epochs, generator(seed, "reward batches"))
    metrics = steps.fit(
        rm, order, loss, learning_rate=learning_rate, warmup=WARMUP, name="reward", progress=progress
    )
    metrics["accuracy"] = _accuracy(rm, held_out)
    progress(f"reward: accuracy {metrics['accuracy']:.3f} on {HELD_OUT} held-out pairs")
    model.save(rm, out)
    return metrics


def data(seed: int, world: int, *, examples: int, **others: Any) -> list[Pair]:
    """Return pairs on prompts that no language model is trained on."""
    return reward_pairs(examples, world)


def _classifier(lm) -> LlamaForSequenceClassification:
    settings = model.config()
    settings.num_labels = 1
    settings.tie_word_embeddings = False
    rm = LlamaForSequenceClassification(settings)
    rm.model.load_state_dict(lm.model.state_dict())
    return rm


def _table(pairs) -> steps.Table:
    """Return a table of chosen rows, then rejected rows."""
    prompts = [pair.prompt for pair in pairs]
    return steps.table(prompts * 2, [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])


def rewards(rm: LlamaForSequenceClassification, batch: steps.Table) -> torch.Tensor:
    """Return each row's raw logit [rows], read at its last token."""
    hidden = rm.model(input_ids=batch.tokens, use_cache=False).last_hidden_state
    return rm.score(hidden[torch.arange(len(hidden)), batch.length - 1])[:, 0]


@torch.no_grad()
def _accuracy(rm, rows: steps.Table) -> float:
    values = torch.cat([rewards(rm, rows.rows(index)) for index in torch.arange(len(rows.length)).split(250)])
    chosen, rejected = values.view(2, -1)
    return (chosen > rejected).double().mean().item()
