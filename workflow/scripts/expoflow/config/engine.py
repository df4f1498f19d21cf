"""The section `engine`: how engines hold and run models, by vLLM's own names."""

from typing import Any, Literal

from pydantic import Field

from expoflow.config.base import Strict

# Bytes of an element of a weight that vLLM quantises while it loads, scales of blocks included.
QUANTISED = {
    "fp8_per_tensor": 1.0,
    "fp8_per_channel": 1.0,
    "fp8_per_block": 1.0,
    "mxfp8": 33 / 32,
    "mxfp4": 17 / 32,
    "int8_per_channel_weight_only": 1.0,
    "nvfp4_per_token": 9 / 16,
}
EXPERTS = ("int8_per_channel_weight_only", "nvfp4_per_token")  # of a mixture of experts, and of nothing else
# Bytes of an element of a key or value.
CACHED = {
    "float16": 2.0,
    "bfloat16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "fp8_per_token_head": 1.0,
    "int8_per_token_head": 1.0,
    "int4_per_token_head": 0.5,
    "nvfp4": 9 / 16,
}
# What in exact arithmetic changes no response: memory, batches, and by which kernels it is computed.
FREE = ("gpu_memory_utilization", "max_num_seqs", "enforce_eager")
# What transformers cannot do.
VLLM_ONLY = ("quantization", "kv_cache_dtype")
UTILIZATION = 0.92  # share of a GPU's memory that vLLM 0.32 takes by itself


class EngineConfig(Strict):
    """How engines run models, by vLLM's names; what is left out, the engine decides. A model's own section wins, key by key, and
    `null` in it takes back what all models have.

    No result depends on gpu_memory_utilization, max_num_seqs and enforce_eager, so that they can be changed in the middle of a run.
    """

    gpu_memory_utilization: float | None = Field(None, gt=0, le=1, strict=True)
    """Share of a GPU's memory that an engine takes; vLLM's own is 0.92. Lower it if something else is on the GPU."""
    max_num_seqs: int | None = Field(None, ge=1, strict=True)
    """Responses, or conversations to score, at a time at most."""
    max_model_len: int | None = Field(None, ge=2, strict=True)
    """Tokens that prompt and response have together at most, the model's own limit where that is less: a response ends there, and a
    conversation is scored up to there. Without it vLLM takes the model's, or as many as fit into memory."""
    enforce_eager: bool | None = Field(None, strict=True)
    """Run vLLM without torch.compile and CUDA graphs: slower, with more memory left for keys and values."""
    quantization: Literal[tuple(QUANTISED)] | None = None
    """How vLLM quantises weights while it loads them; int8_per_channel_weight_only and nvfp4_per_token are for experts alone."""
    kv_cache_dtype: Literal[tuple(CACHED)] | None = None
    """Type of keys and values in vLLM; by itself that of the model."""

    def counted(self) -> dict[str, Any]:
        """What responses and rewards depend on, as far as it is given."""
        return self.model_dump(exclude=set(FREE), exclude_none=True)

    def free(self) -> dict[str, Any]:
        """What they do not depend on, as far as it is given."""
        return self.model_dump(include=set(FREE), exclude_none=True)

    def foreign(self) -> str | None:
        """The reason why transformers cannot run a model so; None if it can."""
        given = [f"{name}: {value}" for name in VLLM_ONLY if (value := getattr(self, name)) is not None]
        return (
            f"engine: {{{', '.join(given)}}} is vLLM's alone, and transformers runs this" if given else None
        )

    def shortened(self, context: int) -> int:
        """Tokens of a context of so many at most."""
        return min(context, self.max_model_len or context)

    def weight(self, size: float, expert: bool = False) -> float:
        """Bytes of a weight's element of `size` bytes as it is loaded; `expert`: it is one of several experts'."""
        quantised = expert or self.quantization not in EXPERTS
        return min(size, QUANTISED.get(self.quantization, size)) if quantised else size

    def cache(self) -> float:
        """Bytes of a key's or value's element, of those that it has in 16 bits."""
        return CACHED.get(self.kv_cache_dtype, 2) / 2

    def utilization(self, usual: float = UTILIZATION) -> float:
        """Share of a GPU's memory that the engine takes."""
        return self.gpu_memory_utilization or usual


BY_ITSELF = EngineConfig()
