"""How the transformers engine feeds a batch of prompts, and then the model's own tokens.

`Padded` takes prompts of any lengths and pads them on the left. It is used if the class accepts
positions and its cache holds only keys and values. `AsGenerate` takes prompts of one length and
feeds them as the class' own `generate` does. It is used for all other classes: padding would change
the state of a recurrent layer, the positions of a class that counts them itself, and the way an
image is read.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig


class Padded:
    """A left-padded batch; finished rows can be removed."""

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
        """Return the logits of every row's next token: [rows, vocabulary], float32."""
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
        """Append its next token to every row."""
        self.ids, self.positions = token[:, None], self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], dim=1)

    def keep(self, rows: Tensor) -> bool:
        """Keep only these rows; return whether that was possible."""
        self.ids, self.mask, self.positions = self.ids[rows], self.mask[rows], self.positions[rows]
        self.cache.batch_select_indices(rows)
        return True


class AsGenerate:
    """A batch of prompts of one length, fed step by step as transformers' `generate` does.

    `features` are what a processor makes of the prompts' images. After the first step, each class
    updates its cache, positions and images by its own methods, which `generate` calls.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], features: Mapping[str, Any]):
        self.model, self.first = model, True
        self.ids = torch.tensor(prompts, device=model.device)
        self.given = _prepared(model, self.ids, features)

    def logits(self) -> Tensor:
        """Return the logits of every row's next token: [rows, vocabulary], float32."""
        # without a cache, every step takes all tokens
        new = 1 if self.given.get("use_cache") and not self.first else None
        inputs = self.model.prepare_inputs_for_generation(
            self.ids, next_sequence_length=new, is_first_iteration=self.first, **self.given
        )
        output = self.model(**inputs, return_dict=True)
        self.given = self.model._update_model_kwargs_for_generation(output, self.given)
        self.first = False
        return output.logits[:, -1].float()

    def add(self, token: Tensor) -> None:
        """Append its next token to every row."""
        self.ids = torch.cat([self.ids, token[:, None]], dim=1)

    def keep(self, rows: Tensor) -> bool:
        """Return False: there is no common way to remove a row from a class' cache."""
        return False


def _prepared(model: Any, ids: Tensor, features: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `generate` passes besides token ids: cache, positions, mask, features."""
    given: dict[str, Any] = {}

    def loop(model: Any, input_ids: Tensor, **prepared: Any) -> Tensor:
        for name in inspect.signature(type(model)._sample).parameters:  # the loop's own arguments
            prepared.pop(name, None)
        given.update(prepared)
        return input_ids

    settings = GenerationConfig(max_new_tokens=1, do_sample=False, use_cache=True)
    model.generate(ids, generation_config=settings, custom_generate=loop, **features)
    return given
