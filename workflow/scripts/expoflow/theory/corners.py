"""A model with weights anywhere between and beyond some checkpoints, and its derivatives.

The checkpoints are called corners. They stay on disk and are read through mmap; the model is a
float32 copy. A model of 7B parameters thus needs 28 GB on the device. `slopes` needs as much again
for the tangent. Its differentiation is forward-mode and keeps no graph, so activations cost twice
as much as in generation, not as much as in training.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call

from expoflow.engines.model import Model
from expoflow.engines.transformers import TransformersEngine, padded, response_logps
from expoflow.errors import CheckpointError
from expoflow.extrapolation.layout import ONE_LAYOUT
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors_of

Row = tuple[list[int], list[int]]


class Corners:
    """A float32 model loaded by transformers, and the checkpoints that its weights are made of.

    Attention is "eager": only this implementation supports forward-mode differentiation.
    """

    def __init__(self, model: Model, corners: Sequence[Streamed]):
        """Load `model`, which also gives tokenizer, template and stop tokens.

        Raises CheckpointError if the corners' tensors differ, or if one is stored under another
        name or in another layout than the class has.
        """
        self.engine = TransformersEngine(model, dtype="float32", attention="eager")
        state = self.engine.model.state_dict()
        found = [
            {
                name: tensor
                for name, tensor in tensors_of(corner)
                if name in state and tensor.is_floating_point()
            }
            for corner in corners
        ]
        for name in state:
            shapes = {values[name].shape if name in values else None for values in found}
            if len(shapes) > 1:
                raise CheckpointError(
                    f"tensor {name} has different shapes in {', '.join(str(each.aligned) for each in corners)};"
                    " take models of one architecture"
                )
        # files have one name of a tied tensor, or all its names
        owners = {each.data_ptr(): name for name, each in self.engine.model.named_parameters()}
        self.values = {
            owners.get(state[name].data_ptr(), name): [values[name] for values in found] for name in found[0]
        }
        if fixed := next((name for name in owners.values() if name not in self.values), None):
            raise CheckpointError(
                f"{corners[0].aligned}: its files have {fixed} of its class under another name or in another layout, which is"
                f" not supported here; {ONE_LAYOUT}"
            )

    def at(self, *shares: float) -> None:
        """Set the weights to the sum of share times corner, computed in float64.

        A single share of 1 gives the corner exactly.
        """
        state = self.engine.model.state_dict()
        with torch.no_grad():
            for name in self.values:
                state[name].copy_(self._sum(name, shares))

    def slopes(self, rows: Sequence[Row], shares: Sequence[float]) -> Iterator[list[tuple[int, float]]]:
        """Yield directional derivatives of the responses' log-probabilities at the current weights.

        `rows` are (prompt, response) token ids. The direction is the sum of share times corner.
        Forward-mode differentiation gives every row's derivative in one pass. Yields (index,
        derivative) in nats.
        """
        model = self.engine.model
        parameters = dict(model.named_parameters())
        with torch.no_grad(), forward_ad.dual_level():
            dual = {
                name: forward_ad.make_dual(parameter, self._sum(name, shares).to(parameter))
                for name, parameter in parameters.items()
            }
            for batch, ids in padded(rows):
                inputs = {"input_ids": ids.to(self.engine.device), "use_cache": False}
                logits = functional_call(model, dual, kwargs=inputs).logits
                logps = response_logps(logits, ids, [rows[index] for index in batch])
                yield list(zip(batch, forward_ad.unpack_dual(logps).tangent.tolist(), strict=True))

    def close(self) -> None:
        """Free the model's memory."""
        self.engine.close()

    def _sum(self, name: str, shares: Sequence[float]) -> Tensor:
        """Return the sum in float64, in the corners' shape."""
        parts = zip(shares, self.values[name], strict=True)
        return sum(share * corner.double() for share, corner in parts if share)
