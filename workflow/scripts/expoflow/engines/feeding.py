"""How a language model is given a batch of prompts, and then its own tokens: two ways of the transformers engine.

A class that takes positions and keeps keys and values alone is given prompts of any lengths, padded on the left (`Padded`). Padding
would change the state of a recurrent layer, the place of a token whose class counts places by itself, and what an image is
seen as: other classes are given prompts of one length, as their own `generate` would give them (`AsGenerate`).
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig


class Padded:
    """A left-padded batch; rows that are finished may leave it."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]):
        device, longest = model.device, max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        self.model, self.cache = model, DynamicCache()
        self.ids, self.mask = ids.to(device), mask.to(device)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)

    def logits(self) -> Tensor:
        """[rows, vocabulary], float32: of every row's next token."""
        output = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def add(self, token: Tensor) -> None:
        """Give every row its next token."""
        self.ids, self.positions = token[:, None], self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], dim=1)

    def keep(self, rows: Tensor) -> bool:
        """Go on with these rows alone; whether it could be done."""
        self.ids, self.mask, self.positions = self.ids[rows], self.mask[rows], self.positions[rows]
        self.cache.batch_select_indices(rows)
        return True


class AsGenerate:
    """A batch of prompts of one length, given step by step as transformers' `generate` gives them.

    `features` are what a processor makes of the prompts' images. What becomes of the past, of positions and of images after
    the first step is the class' own to say: each has methods for it, which `generate` calls.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], features: Mapping[str, Any]):
        self.model, self.first = model, True
        self.ids = torch.tensor(prompts, device=model.device)
        self.given = _prepared(model, self.ids, features)

    def logits(self) -> Tensor:
        """[rows, vocabulary], float32: of every row's next token."""
        # without a cache, all tokens are given in every step
        new = 1 if self.given.get("use_cache") and not self.first else None
        inputs = self.model.prepare_inputs_for_generation(
            self.ids, next_sequence_length=new, is_first_iteration=self.first, **self.given
        )
        output = self.model(**inputs, return_dict=True)
        self.given = self.model._update_model_kwargs_for_generation(output, self.given)
        self.first = False
        return output.logits[:, -1].float()

    def add(self, token: Tensor) -> None:
        """Give every row its next token."""
        self.ids = torch.cat([self.ids, token[:, None]], dim=1)

    def keep(self, rows: Tensor) -> bool:
        """Rows stay until all are finished: how to take one out of its past, each class would have to say."""
        return False


def _prepared(model: Any, ids: Tensor, features: Mapping[str, Any]) -> dict[str, Any]:
    """What `generate` would give to the class beside token ids: cache, positions, mask and features."""
    given: dict[str, Any] = {}

    def loop(model: Any, input_ids: Tensor, **prepared: Any) -> Tensor:
        for name in inspect.signature(type(model)._sample).parameters:  # of the loop, not of the class
            prepared.pop(name, None)
        given.update(prepared)
        return input_ids

    settings = GenerationConfig(max_new_tokens=1, do_sample=False, use_cache=True)
    model.generate(ids, generation_config=settings, custom_generate=loop, **features)
    return given
