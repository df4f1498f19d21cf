"""RLHF of the miniature: REINFORCE leave-one-out (RLOO) on a reward model, with a KL penalty."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from expoflow.miniature import model
from expoflow.miniature.tokenizer import tokenizer
from expoflow.miniature.world import generator, prompts
from expoflow.results import Prompt
from expoflow.training.loop import reward, steps

MAX_TOKENS = 64  # of a response
WARMUP = 0.1  # of the steps
UNFINISHED = 1.0  # subtracted from the reward of a response that did not end by itself


@steps.deterministic()
def train(
    out: Path,
    *,
    seed: int,
    world: int | None = None,
    base: Path | None = None,
    reward_model: Path | None = None,
    examples: int,
    samples: int,
    epochs: int,
    learning_rate: float,
    beta: float,
    until: float = 1.0,
    progress: steps.Progress = print,
) -> dict[str, float]:
    """Train the checkpoint `base`, also the reference, on its own responses; save it to `out`.

    Every step draws `samples` responses to each of a few of the `examples` train prompts. It takes
    one gradient of -advantage * log p(response). The advantage is the score minus the mean score of
    the prompt's other responses; score = reward - beta * (log p - log p of the reference) (Ahmadian
    et al. 2024). `reward_model` is the reward model's folder. Training stops after a share `until`
    of the steps. Returns steps, and mean reward and mean KL of the last tenth of the steps.
    """
    lm, reference = model.load(base), model.load(base).eval()
    rm = LlamaForSequenceClassification.from_pretrained(reward_model, local_files_only=True).eval()
    rng = generator(seed, "rlhf prompts")
    drawn = _drawn(rng, seed if world is None else world, examples)
    seen: list[tuple[float, float]] = []
    torch.manual_seed(seed)

    def loss(index):
        rows, finished = respond(lm, [drawn[at] for at in index for _ in range(samples)])
        logps = steps.sequence_logps(lm, rows)
        with torch.no_grad():
            rewards = reward.rewards(rm, rows)
            kl = logps - steps.sequence_logps(reference, rows)
            score = (rewards - UNFINISHED * ~finished - beta * kl).view(-1, samples)
            advantage = (score - score.mean(1, keepdim=True)) * samples / (samples - 1)
        seen.append((rewards.mean().item(), kl.mean().item()))
        return -(advantage.view(-1) * logps).mean()

    size = max(1, steps.BATCH // samples)
    order = [part for _ in range(epochs) for part in torch.from_numpy(rng.permutation(examples)).split(size)]
    settings = {"learning_rate": learning_rate, "warmup": WARMUP, "until": until}
    metrics = steps.fit(lm, order, loss, **settings, name="rlhf", progress=progress)
    rewarded, kl = np.mean(seen[-max(1, len(seen) // 10) :], axis=0)
    progress(f"rlhf: reward {rewarded:.3f}, KL {kl:.2f} nats per response")
    model.save(lm, out)
    return {"steps": metrics["steps"], "reward": float(rewarded), "kl": float(kl)}


def data(seed: int, world: int, *, examples: int, **others: Any) -> list[Prompt]:
    """Train prompts, drawn at random."""
    return _drawn(generator(seed, "rlhf prompts"), world, examples)


def _drawn(rng: np.random.Generator, world: int, examples: int) -> list[Prompt]:
    asked = prompts("train", world)
    return [asked[at] for at in rng.integers(len(asked), size=examples)]


@torch.no_grad()
def respond(lm: LlamaForCausalLM, asked: list[Prompt]) -> tuple[steps.Table, torch.Tensor]:
    """Draw a response to every prompt at temperature 1; return also which finished, bool [rows]."""
    chat = tokenizer()
    texts = [
        chat.apply_chat_template(steps.messages(prompt), tokenize=False, add_generation_prompt=True)
        for prompt in asked
    ]
    ids = chat(texts)["input_ids"]
    longest = max(map(len, ids))
    padded = torch.tensor([[chat.pad_token_id] * (longest - len(row)) + row for row in ids])
    written = lm.generate(
        input_ids=padded,
        attention_mask=(padded != chat.pad_token_id).long(),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=MAX_TOKENS,
    )[:, longest:]
    ends = written == chat.eos_token_id
    finished = ends.any(1)
    count = torch.where(finished, ends.int().argmax(1) + 1, written.shape[1])
    prompt = torch.tensor([len(row) for row in ids])
    tokens = torch.full((len(ids), longest + written.shape[1]), chat.pad_token_id)
    for row, start, response, n in zip(tokens, ids, written, count, strict=True):
        row[: len(start)] = torch.tensor(start)
        row[len(start) : len(start) + n] = response[:n]
    return steps.Table(tokens, prompt, prompt + count), finished
