"""The vLLM engine: continuous batching on GPUs (and on a CPU, for tests), one random stream per request."""

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Read by vLLM when it is imported: an engine without processes of its own, which pins no core and phones
# nobody. A value that the user has set stays.
for name, value in {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(name, value)

from transformers import PretrainedConfig  # noqa: E402
from vllm import EngineArgs, LLMEngine, PoolingParams, SamplingParams  # noqa: E402
from vllm.distributed import cleanup_dist_env_and_memory  # noqa: E402
from vllm.inputs import tokens_input  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402
from vllm.sampling_params import RequestOutputKind  # noqa: E402
from vllm.usage.usage_lib import UsageContext  # noqa: E402

from expoflow.config import GenerateConfig  # noqa: E402
from expoflow.engines import Completion, Model, Request, engine_key, package  # noqa: E402
from expoflow.engines.vllm_plugin import FORMAT, extra_config  # noqa: E402
from expoflow.errors import CheckpointError  # noqa: E402
from expoflow.streaming import Streamed  # noqa: E402

WORKER = "expoflow.engines.vllm_plugin.ExpoWorker"
Parameters = SamplingParams | PoolingParams
# Compiling gains nothing there; with chunked prefill, requests that have a seed crash (vLLM 0.32).
CPU = {"enforce_eager": True, "enable_chunked_prefill": False, "kv_cache_memory_bytes": 1 << 30}


class VllmEngine:
    """A causal language model run by vLLM in this process, over `gpus` GPUs (tensor parallel)."""

    name = "vllm"

    def __init__(self, model: Model, gpus: int = 1):
        """Load the model; vLLM's own error says what is lacking where it does not fit into memory."""
        self.engine = start(
            model.folder,
            package.config(model),
            trust_remote_code=model.trust_remote_code,
            tensor_parallel_size=gpus,
            load_format=FORMAT,
            model_loader_extra_config=_extra(model),
            worker_extension_cls=WORKER,
        )
        self._describe(model)

    @property
    def context(self) -> int:
        """Tokens that prompt and response may have together: the model's, or fewer where memory is short."""
        return self.engine.model_config.max_model_len

    def move(self, model: Model) -> None:
        """Take the weights, tokenizer, template and stop tokens of another model of the same architecture.

        Raises CheckpointError for another architecture and for weights that cannot be read or extrapolated;
        the former model is then still there.
        """
        package.require_same_architecture(self.key, self.loaded, model, self.name)
        reasons = self.engine.collective_rpc("set_weights", args=(str(model.folder), _extra(model)))
        if reason := next(filter(None, reasons), None):
            raise CheckpointError(reason)
        self._describe(model)

    def generate(
        self, requests: Sequence[Request], config: GenerateConfig, done: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer the requests whose index is not in `done`; see `Engine.generate`."""
        asked = {
            index: (request.token_ids, self._sampling(request.seed, config))
            for index, request in enumerate(requests)
            if index not in done
        }
        for outputs in answers(self.engine, asked):
            yield [
                (index, package.completion(self.tokenizer, [*output.outputs[0].token_ids], self.stop))
                for index, output in outputs
            ]

    def logps(self, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[list[tuple[int, float]]]:
        """Log-probability of given responses; see `Engine.logps`."""
        wanted = SamplingParams(
            temperature=0,
            max_tokens=1,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        asked = {index: ([*prompt, *response], wanted) for index, (prompt, response) in enumerate(rows)}
        for outputs in answers(self.engine, asked):
            yield [
                (index, _given(output.prompt_logprobs, asked[index][0], start=len(rows[index][0])))
                for index, output in outputs
            ]

    def close(self) -> None:
        """Free the model's memory; another engine may then be made in this process."""
        stop(self)

    def _describe(self, model: Model) -> None:
        self.loaded, self.key = model, engine_key(model, self.name)
        self.tokenizer, self.stop = package.tokenizer(model), package.stop_ids(model)

    def _sampling(self, seed: int, config: GenerateConfig) -> SamplingParams:
        return SamplingParams(
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            presence_penalty=config.presence_penalty,
            frequency_penalty=config.frequency_penalty,
            seed=seed,
            stop_token_ids=sorted(self.stop),
            max_tokens=config.max_tokens,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def start(folder: Path, config: PretrainedConfig, dtype: str = "keep", **settings: Any) -> LLMEngine:
    """An engine that takes token ids, in the model's own `dtype` or another, with the longest context that fits.

    Nothing is kept from one request to the next: an answer must not depend, not even in its last bit, on
    what was asked before.
    """
    kept = config.dtype or "auto"  # vLLM's auto would make float32 a 16-bit type
    arguments = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        dtype=kept if dtype == "keep" else dtype,
        max_model_len=-1,
        enable_prefix_caching=False,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **(CPU if current_platform.is_cpu() else {}),
        **settings,
    )
    return LLMEngine.from_engine_args(arguments, UsageContext.LLM_CLASS)


def answers(engine: LLMEngine, asked: Mapping[int, tuple[Sequence[int], Parameters]]) -> Iterator[list]:
    """Answer (token ids, parameters): after every step the (index, output) that it finished."""
    waiting = set(asked)
    try:
        for index, (token_ids, parameters) in asked.items():
            engine.add_request(str(index), tokens_input(list(token_ids)), parameters)
        while waiting:
            outputs = [(int(output.request_id), output) for output in engine.step() if output.finished]
            waiting.difference_update(index for index, _ in outputs)
            yield outputs
    finally:
        engine.abort_request([str(index) for index in waiting])


def stop(owner: Any) -> None:
    """End `owner.engine` and its processes, if it has any, and free its memory."""
    owner.engine.engine_core.shutdown()
    del owner.engine
    cleanup_dist_env_and_memory()


def _given(logprobs: Sequence[Mapping[int, Any] | None], tokens: Sequence[int], start: int) -> float:
    """Sum of the log-probabilities of `tokens` from `start` on."""
    places = range(start, len(tokens))
    return math.fsum(logprobs[place][tokens[place]].logprob for place in places)


def _extra(model: Model) -> dict[str, Any]:
    """What the loader is asked for; stored weights are alpha 0 of the folder itself."""
    stored = Streamed(sft=model.folder, aligned=model.folder, alpha=0)
    return extra_config(model.streamed or stored)
