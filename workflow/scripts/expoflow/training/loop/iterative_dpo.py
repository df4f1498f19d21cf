"""Iterative DPO of the miniature, on the model's own responses, labelled by a reward model."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from expoflow.engines.model import Model
from expoflow.miniature import model
from expoflow.miniature.world import generator, prompts
from expoflow.miniature.writers import Pair
from expoflow.results import Prompt
from expoflow.training import onpolicy
from expoflow.training.loop import dpo, steps

MAX_TOKENS = 64  # of a response
WARMUP = dpo.WARMUP


def train(
    out: Path,
    *,
    seed: int,
    world: int | None = None,
    base: Path | None = None,
    reward_model: Path | None = None,
    examples: int,
    iterations: int,
    samples: int,
    epochs: int,
    learning_rate: float,
    beta: float,
    progress: steps.Progress = print,
) -> dict[str, float]:
    """Train the checkpoint `base` in rounds, each on pairs of its own responses; save it to `out`.

    A round takes its share of `examples` train prompts. The model at its beginning is also its
    reference (Tran et al. 2023, the paper's [48]). `reward_model` is the reward model's folder.
    Returns pairs, steps and the loss of the last round.
    """
    model.load(base)  # raises if there is none
    asked = data(seed, seed if world is None else world)
    total = {"pairs": 0, "steps": 0}
    with TemporaryDirectory() as kept:
        policy = base
        for number, share in enumerate(
            onpolicy.shares(asked, examples, iterations, range(len(asked))), start=1
        ):
            preferences = onpolicy.preferences(
                Model(folder=policy),
                Model(folder=reward_model),
                share,
                samples=samples,
                max_tokens=MAX_TOKENS,
                seed=seed + number * samples,
                part=Path(kept) / "responses.jsonl",
            )
            pairs = [Pair(each.prompt, each.chosen, each.rejected) for each in preferences]
            progress(
                f"iterative dpo: round {number}/{iterations}, {len(pairs)} pairs of {len(share)} prompts"
            )
            with steps.deterministic():
                lm = model.load(policy)
                metrics = dpo.fit(
                    lm,
                    pairs,
                    seed,
                    epochs=epochs,
                    learning_rate=learning_rate,
                    beta=beta,
                    name=f"iterative dpo {number}",
                    progress=progress,
                )
            total["pairs"] += len(pairs)
            total["steps"] += metrics["steps"]
            policy = out if number == iterations else Path(kept) / f"round-{number}"
            model.save(lm, policy)
    return total | {"loss": metrics["loss"]}


def data(seed: int, world: int, **others: Any) -> list[Prompt]:
    """Return the shuffled train prompts, from which the rounds take theirs in turn."""
    asked = prompts("train", world)
    return [asked[at] for at in generator(seed, "iterative dpo prompts").permutation(len(asked))]
