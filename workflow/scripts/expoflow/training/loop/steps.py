"""Shared parts of the miniature's trainings: token tables, batches by length, optimisation."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from expoflow.miniature.tokenizer import tokenizer
from expoflow.results import Prompt
from expoflow.system.progress import report

BATCH = 64
CLIP = 1.0  # of the gradient's norm
WINDOW = 8  # batches among which examples are sorted by length

Progress = Callable[[str], None]


@contextmanager
def deterministic() -> Iterator[None]:
    """Use one thread and deterministic kernels, so the same seed gives the same bytes.

    The old settings are restored afterwards. This also works as a decorator.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = fill


class Table(NamedTuple):
    """Conversations as token ids, padded on the right (so causal attention needs no mask).

    `tokens` is int64 [rows, longest]. `prompt` and `length` are int64 [rows]: start and end of the
    response.
    """

    tokens: Tensor
    prompt: Tensor
    length: Tensor

    def rows(self, index: Tensor) -> "Table":
        """Return these rows, without columns that are only padding."""
        length = self.length[index]
        return Table(self.tokens[index, : int(length.max())], self.prompt[index], length)

    def predicts(self) -> Tensor:
        """Return a mask [rows, longest - 1]: positions before a response token (including EOS)."""
        position = torch.arange(self.tokens.shape[1] - 1)
        return (position >= self.prompt[:, None] - 1) & (position < self.length[:, None] - 1)


def table(prompts: Sequence[Prompt], responses: Sequence[str]) -> Table:
    """Tokenize (prompt, response) by the chat template: one BOS, and EOS after the response."""
    chat = tokenizer()
    asked = {prompt.prompt_id: prompt for prompt in prompts}
    texts = [
        chat.apply_chat_template(messages(prompt), tokenize=False, add_generation_prompt=True)
        for prompt in asked.values()
    ]
    starts = dict(zip(asked, chat(texts)["input_ids"], strict=True))
    ends = chat(list(responses))["input_ids"]
    rows = [
        (starts[prompt.prompt_id], [*end, chat.eos_token_id])
        for prompt, end in zip(prompts, ends, strict=True)
    ]
    tokens = np.full((len(rows), max(len(start) + len(end) for start, end in rows)), chat.pad_token_id)
    for row, (start, end) in zip(tokens, rows, strict=True):
        row[: len(start) + len(end)] = start + end
    prompt = torch.tensor([len(start) for start, _ in rows])
    return Table(torch.from_numpy(tokens), prompt, prompt + torch.tensor([len(end) for _, end in rows]))


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """Return the prompt as a chat template takes it."""
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def batches(length: Tensor, epochs: int, rng: np.random.Generator, size: int = BATCH) -> list[Tensor]:
    """Return row indices of every batch of every epoch; rows of a batch have similar lengths.

    Rows are shuffled, then sorted by length within windows of a few batches; then batches are
    shuffled.
    """
    order = []
    for _ in range(epochs):
        shuffled = torch.from_numpy(rng.permutation(len(length)))
        epoch = []
        for window in shuffled.split(size * WINDOW):
            epoch += window[length[window].argsort(stable=True)].split(size)
        order += [epoch[i] for i in rng.permutation(len(epoch))]
    return order


def token_logps(model: LlamaForCausalLM, batch: Table) -> tuple[Tensor, Tensor]:
    """Return the log-probability of every response token [n], and its row in the batch [n].

    Logits are computed only for response tokens.
    """
    predicts = batch.predicts()
    hidden = model.model(input_ids=batch.tokens, use_cache=False).last_hidden_state[:, :-1][predicts]
    logps = -nn.functional.cross_entropy(
        model.lm_head(hidden), batch.tokens[:, 1:][predicts], reduction="none"
    )
    return logps, predicts.nonzero()[:, 0]


def sequence_logps(model: LlamaForCausalLM, batch: Table) -> Tensor:
    """Return the log-probability of every response given its prompt [rows], the sum over tokens."""
    logps, row = token_logps(model, batch)
    return logps.new_zeros(len(batch.length)).index_add(0, row, logps)


def fit(
    model: nn.Module,
    order: list[Tensor],
    loss: Callable[[Tensor], Tensor],
    *,
    learning_rate: float,
    warmup: float,
    name: str,
    progress: Progress,
    until: float = 1.0,
) -> dict[str, float]:
    """Take an AdamW step on `loss(rows)` for each batch in `order`.

    The learning rate has a linear warm-up, then falls to 0 by a cosine. `warmup` and `until` are
    shares of the steps. Training stops after `until`, with exactly the weights that the whole
    training has at that step. Returns the number of steps and the mean loss of the last tenth.
    """
    stop = max(1, round(until * len(order)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(len(order), warmup))
    model.train()
    every = max(1, len(order) // 10)
    losses: list[float] = []
    for step, rows in enumerate(order[:stop], start=1):
        optimizer.zero_grad(set_to_none=True)
        value = loss(rows)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        scheduler.step()
        losses.append(value.item())
        report(step, stop, "steps", f"{name}: loss {losses[-1]:.4f}")
        if step % every == 0 or step == stop:
            progress(f"{name}: step {step}/{len(order)}, loss {np.mean(losses[-every:]):.4f}")
    model.eval()
    return {"steps": stop, "loss": float(np.mean(losses[-every:]))}


def _cosine(steps: int, warmup: float) -> Callable[[int], float]:
    rise = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return factor
