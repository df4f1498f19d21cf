"""Rewards: the reward model's raw logit for (prompt, response)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from expoflow.chat import token_ids
from expoflow.errors import CheckpointError
from expoflow.records import Generation, Prompt

# Tokens, padding included, that are scored at a time.
BATCH_TOKENS = 32768


class RewardModel:
    """A sequence classifier with one logit, from a checkpoint folder."""

    def __init__(self, folder: Path):
        """Raises CheckpointError for a model that has not exactly one logit, or no padding token."""
        config = AutoConfig.from_pretrained(folder)
        if config.num_labels != 1:
            raise CheckpointError(
                f"reward model '{folder}' has {config.num_labels} logits; one with num_labels 1 is needed"
            )
        if config.pad_token_id is None:
            raise CheckpointError(f"reward model '{folder}' has no pad_token_id; set it in its config.json")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto").eval()
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu")

    def score(self, prompts: Sequence[Prompt], generations: Sequence[Generation]) -> list[float]:
        """The reward of every generation, in order; `prompts` holds their prompts in any order.

        A conversation longer than the model's context is cut at its end, and the log says how many were.
        """
        messages = {prompt.prompt_id: prompt.messages for prompt in prompts}
        rows = [token_ids(self.tokenizer, messages[g.prompt_id], g.response) for g in generations]
        context = self.model.config.max_position_embeddings
        if cut := sum(len(row) > context for row in rows):
            print(f"warning: {cut} of {len(rows)} conversations cut to the reward model's {context} tokens")
        return self.logits([row[:context] for row in rows])

    @torch.inference_mode()
    def logits(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The logit of every row of token ids, in order; batches go by length under a token budget."""
        rewards = torch.empty(len(rows), dtype=torch.float64)
        pending = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        while pending:
            size = 1
            while size < len(pending) and (size + 1) * len(rows[pending[size]]) <= BATCH_TOKENS:
                size += 1
            batch, pending = pending[:size], pending[size:]
            rewards[batch] = self._forward([rows[i] for i in batch]).double().cpu()
        return rewards.tolist()

    def _forward(self, rows: list[Sequence[int]]) -> torch.Tensor:
        """Logits of one right-padded batch, shape (len(rows),)."""
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.model.config.pad_token_id)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        device = self.model.device
        return self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0]
