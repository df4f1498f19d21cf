"""Rewards by vLLM's pooling runner: a sequence classifier's raw logit, as in `scoring.rewards`."""

from collections.abc import Iterator, Sequence
from typing import Any

from vllm import PoolingParams

from expoflow.engines import tokenizer
from expoflow.engines.model import Model
from expoflow.engines.vllm_session import answers, start, stop


class VllmRewardModel:
    """A sequence classifier with one logit from a checkpoint folder.

    It keeps its own type unless `dtype` names another, and runs over `gpus` GPUs (tensor parallel).
    """

    def __init__(self, reward_model: Model, config: Any, dtype: str = "keep", gpus: int = 1):
        self.config, self.tokenizer = config, tokenizer.tokenizer(reward_model)
        self.engine = start(reward_model, config, dtype, runner="pooling", tensor_parallel_size=gpus)

    @property
    def context(self) -> int:
        """Most tokens that a conversation may have: the model's limit, or what memory allows."""
        return self.engine.model_config.max_model_len

    def logits(self, rows: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, float]]]:
        """Yield (index, logit) of the rows of token ids that each step finished."""
        raw = PoolingParams(task="classify", use_activation=False)
        asked = {index: (self._without_padding(row), raw.clone()) for index, row in enumerate(rows)}
        for outputs in answers(self.engine, asked):
            yield [(index, output.outputs.data.item()) for index, output in outputs]

    def close(self) -> None:
        """Free the model's memory; this process can then start another engine."""
        stop(self)

    def _without_padding(self, row: Sequence[int]) -> Sequence[int]:
        """Return `row` up to the last token that is not padding, whose logit transformers reads."""
        end = len(row)
        while end > 1 and row[end - 1] == self.config.pad_token_id:
            end -= 1
        return row[:end]
