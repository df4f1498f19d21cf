"""The section `engine`: how engines load and run models, with vLLM's own key names."""

from typing import Any, Literal

from pydantic import Field

from expoflow.config.base import Strict

# Bytes per element of a weight that vLLM quantises on loading, block scales included.
QUANTISED = {
    "fp8_per_tensor": 1.0,
    "fp8_per_channel": 1.0,
    "fp8_per_block": 1.0,
    "mxfp8": 33 / 32,
    "mxfp4": 17 / 32,
    "int8_per_channel_weight_only": 1.0,
    "nvfp4_per_token": 9 / 16,
}
EXPERTS = ("int8_per_channel_weight_only", "nvfp4_per_token")  # these quantise only the experts of a mixture
# Bytes per element of a key or value.
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
# Keys that change no response in exact arithmetic: memory, batches, and the choice of kernels.
FREE = ("gpu_memory_utilization", "max_num_seqs", "enforce_eager")
# Keys that transformers does not support.
VLLM_ONLY = ("quantization", "kv_cache_dtype")
UTILIZATION = 0.92  # share of a GPU's memory that vLLM 0.32 takes by itself


class EngineConfig(Strict):
    """How engines run models, with vLLM's key names. The engine decides every key that is left out.

    A model's own section takes precedence, key by key; `null` there resets a key to the engine's
    default. No result depends on gpu_memory_utilization, max_num_seqs and enforce_eager: they may
    be changed during a run.
    """

    gpu_memory_utilization: float | None = Field(None, gt=0, le=1, strict=True)
    """Share of a GPU's memory that an engine takes; vLLM's default is 0.92. Lower it if something
    else uses the GPU."""
    max_num_seqs: int | None = Field(None, ge=1, strict=True)
    """Maximum number of responses, or of conversations to score, at a time."""
    max_model_len: int | None = Field(None, ge=2, strict=True)
    """Maximum number of tokens of prompt and response together, or the model's own limit if that is
    smaller. Responses end there, and conversations are scored up to there. By default vLLM takes
    the model's limit, or what fits into memory."""
    enforce_eager: bool | None = Field(None, strict=True)
    """Run vLLM without torch.compile and CUDA graphs: slower, but more memory is left for keys and
    values."""
    quantization: Literal[tuple(QUANTISED)] | None = None
    """How vLLM quantises weights on loading. int8_per_channel_weight_only and nvfp4_per_token
    quantise only experts."""
    kv_cache_dtype: Literal[tuple(CACHED)] | None = None
    """Type of keys and values in vLLM; by default that of the model."""

    def counted(self) -> dict[str, Any]:
        """The given settings that responses and rewards depend on."""
        return self.model_dump(exclude=set(FREE), exclude_none=True)

    def free(self) -> dict[str, Any]:
        """The given settings that responses and rewards do not depend on."""
        return self.model_dump(include=set(FREE), exclude_none=True)

    def foreign(self) -> str | None:
        """The reason why transformers cannot run a model with these settings; None if it can."""
        given = [f"{name}: {value}" for name in VLLM_ONLY if (value := getattr(self, name)) is not None]
        return (
            f"engine: {{{', '.join(given)}}} is vLLM's alone, and transformers runs this" if given else None
        )

    def shortened(self, context: int) -> int:
        """The context length in tokens: `context`, or max_model_len if that is smaller."""
        return min(context, self.max_model_len or context)

    def weight(self, size: float, expert: bool = False) -> float:
        """Bytes per element after loading, for a weight of `size` bytes per element. `expert`: it
        belongs to an expert."""
        quantised = expert or self.quantization not in EXPERTS
        return min(size, QUANTISED.get(self.quantization, size)) if quantised else size

    def cache(self) -> float:
        """Size of a key or value relative to 16 bits."""
        return CACHED.get(self.kv_cache_dtype, 2) / 2

    def utilization(self, usual: float = UTILIZATION) -> float:
        """The share of a GPU's memory that the engine takes."""
        return self.gpu_memory_utilization or usual


BY_ITSELF = EngineConfig()
