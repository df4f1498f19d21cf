"""The vLLM engine: continuous batching, one random stream per request.

It runs on GPUs, and on a CPU for tests.
"""

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from expoflow.checkpoints.loading import require_loadable
from expoflow.config.stages import GenerateConfig
from expoflow.engines import tokenizer
from expoflow.engines.memory import headers
from expoflow.engines.model import Completion, Model, Pictures, Request, engine_key, no_token
from expoflow.engines.package import package
from expoflow.engines.support import require_supported
from expoflow.engines.vllm_plugin import FORMAT, UNKNOWN, extra_config, reason
from expoflow.engines.vllm_session import NoLogitsError, answers, start, stop
from expoflow.errors import CheckpointError
from expoflow.extrapolation.streamed_checkpoint import Streamed

# vLLM reads these when it is imported. The engine starts no processes, pins no cores, sends no
# usage data and stops if logits are NaN. Values that the user has set stay.
for name, value in {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_RAISE_ON_LOGIT_NANS": "1",
}.items():
    os.environ.setdefault(name, value)

WORKER = "expoflow.engines.vllm_plugin.ExpoWorker"


class VllmEngine:
    """A causal language model, run by vLLM in this process over `gpus` GPUs (tensor parallel)."""

    name = "vllm"

    def __init__(self, model: Model, gpus: int = 1):
        """Load the model.

        If it does not fit into memory, vLLM's own error says what is missing. Raises
        CheckpointError if its class would not load the whole checkpoint, or if vLLM does not know
        the model.
        """
        self.shapes: dict[str, tuple[int, ...]] = {}
        config = tokenizer.config(model)
        require_supported(config, model.folder, self.name, model.trust_remote_code)
        self._require_loadable(model)
        try:
            self.engine = start(
                model,
                config,
                folder=package(model, config),
                tensor_parallel_size=gpus,
                load_format=FORMAT,
                model_loader_extra_config=_extra(model),
                worker_extension_cls=WORKER,
            )
        except ValueError as error:
            if UNKNOWN in str(error):
                raise CheckpointError(reason(error, model.folder)) from None
            raise
        self._describe(model)

    @property
    def context(self) -> int:
        """Most tokens that prompt and response may have together.

        This is the model's limit, or less if memory is short.
        """
        return self.engine.model_config.max_model_len

    def move(self, model: Model) -> None:
        """Switch to another model's weights, tokenizer, template and stop tokens.

        Raises CheckpointError for another architecture and for weights that cannot be read or
        extrapolated. The engine then still holds the former model.
        """
        tokenizer.require_same_architecture(self.key, self.loaded, model, self.name)
        self._require_loadable(model)
        reasons = self.engine.collective_rpc("set_weights", args=(str(model.folder), _extra(model)))
        if told := next(filter(None, reasons), None):
            raise CheckpointError(told)
        self.engine.reset_encoder_cache()  # image features of the old weights
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
        try:
            shown = {index: request.pictures for index, request in enumerate(requests) if request.pictures}
            for outputs in answers(self.engine, asked, shown):
                yield [
                    (index, tokenizer.completion(self.tokenizer, [*output.outputs[0].token_ids], self.stop))
                    for index, output in outputs
                ]
        except NoLogitsError as error:
            raise no_token(self.loaded, requests[error.index]) from None

    def logps(
        self, rows: Sequence[tuple[list[int], list[int]]], pictures: Sequence[Pictures | None] = ()
    ) -> Iterator[list[tuple[int, float]]]:
        """Yield the log-probability of given responses; see `Engine.logps`."""
        wanted = SamplingParams(
            temperature=0,
            max_tokens=1,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        asked = {index: ([*prompt, *response], wanted) for index, (prompt, response) in enumerate(rows)}
        shown = {
            index: replace(each, token_ids=[*each.token_ids, *rows[index][1]])
            for index, each in enumerate(pictures)
            if each
        }
        try:
            for outputs in answers(self.engine, asked, shown):
                yield [
                    (index, _given(output.prompt_logprobs, asked[index][0], start=len(rows[index][0])))
                    for index, output in outputs
                ]
        except NoLogitsError as error:
            yield [(error.index, math.nan)]

    def close(self) -> None:
        """Free the model's memory; this process can then start another engine."""
        stop(self)

    def _require_loadable(self, model: Model) -> None:
        """Raise CheckpointError if the model's class would not load it whole.

        The check runs once for the same names and shapes.
        """
        tensors = headers(model)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != self.shapes:
            require_loadable(model.folder, tensors, "any model", model.trust_remote_code)
            self.shapes = shapes

    def _describe(self, model: Model) -> None:
        self.loaded, self.key = model, engine_key(model, self.name)
        self.tokenizer, self.stop = tokenizer.tokenizer(model), tokenizer.stop_ids(model)

    def _sampling(self, seed: int, config: GenerateConfig) -> SamplingParams:
        return SamplingParams(
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            presence_penalty=config.presence_penalty,
            frequency_penalty=config.frequency_penalty,
            seed=seed,
            stop_token_ids=sorted(self.stop),
            ignore_eos=True,  # vLLM's own are those of the engine's first model
            max_tokens=config.max_tokens,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _given(logprobs: Sequence[Mapping[int, Any] | None], tokens: Sequence[int], start: int) -> float:
    """Return the sum of the log-probabilities of `tokens` from index `start` on."""
    places = range(start, len(tokens))
    return math.fsum(logprobs[place][tokens[place]].logprob for place in places)


def _extra(model: Model) -> dict[str, Any]:
    """Return the loader's config; stored weights are alpha 0 of the folder itself."""
    stored = Streamed(sft=model.folder, aligned=model.folder, alpha=0)
    return extra_config(model.streamed or stored)
