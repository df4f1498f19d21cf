"""Rewards by vLLM's pooling runner: the raw logit of a sequence classifier, as `scoring.rewards.RewardModel` has it."""

from collections.abc import Iterator, Sequence
from typing import Any

from vllm import PoolingParams

from expoflow.engines import tokenizer
from expoflow.engines.model import Model
from expoflow.engines.vllm_session import answers, start, stop


class VllmRewardModel:
    """A sequence classifier with one logit from a checkpoint folder, in its own type unless `dtype` says else.

    Over `gpus` GPUs (tensor parallel).
    """

    def __init__(self, reward_model: Model, config: Any, dtype: str = "keep", gpus: int = 1):
        self.config, self.tokenizer = config, tokenizer.tokenizer(reward_model)
        self.engine = start(reward_model, config, dtype, runner="pooling", tensor_parallel_size=gpus)

    @property
    def context(self) -> int:
        """The most tokens that a conversation may have: the model's, or fewer where memory is short."""
        return self.engine.model_config.max_model_len

    def logits(self, rows: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, float]]]:
        """The logit of every row of token ids, as (index, logit), after every step what it finished."""
        raw = PoolingParams(task="classify", use_activation=False)
        asked = {index: (self._without_padding(row), raw.clone()) for index, row in enumerate(rows)}
        for outputs in answers(self.engine, asked):
            yield [(index, output.outputs.data.item()) for index, output in outputs]

    def close(self) -> None:
        """Free the model's memory; another engine may then be made in this process."""
        stop(self)

    def _without_padding(self, row: Sequence[int]) -> Sequence[int]:
        """`row` to the token whose logit transformers reads: the last one that is not the padding token."""
        end = len(row)
        while end > 1 and row[end - 1] == self.config.pad_token_id:
            end -= 1
        return row[:end]
