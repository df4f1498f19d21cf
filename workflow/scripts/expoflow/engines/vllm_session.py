"""Sessions of vLLM: how one is started, asked and stopped."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PretrainedConfig
from vllm import EngineArgs, LLMEngine, PoolingParams, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.inputs import tokens_input
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext

from expoflow.engines.model import Pictures
from expoflow.engines.support import UNLIMITED, context
from expoflow.engines.vision import has_processor, picture
from expoflow.errors import CheckpointError

Parameters = SamplingParams | PoolingParams
NONE: Mapping[int, Pictures] = MappingProxyType({})
NANS = re.compile(
    r"NaNs detected in logits: \{'(\d+)"
)  # what VLLM_RAISE_ON_LOGIT_NANS makes of the first request
LONGEST = 32768  # tokens of a model whose positions have no end, for which vLLM looks for no length by itself
# Compiling gains nothing there; with chunked prefill, requests that have a seed crash (vLLM 0.32).
CPU = {"enforce_eager": True, "enable_chunked_prefill": False, "kv_cache_memory_bytes": 1 << 30}


# An error inside of a step would put all requests, token by token, into the log.
logging.getLogger("vllm.logging_utils.dump_input").addFilter(lambda record: False)


class NoLogitsError(Exception):
    """The logits of request `index` are NaN; the session is of no use any more."""

    def __init__(self, index: int):
        super().__init__(index)
        self.index = index


def start(folder: Path, config: PretrainedConfig, dtype: str = "keep", **settings: Any) -> LLMEngine:
    """An engine that takes token ids, in the model's own `dtype` or another, with the longest context that fits.

    Nothing is kept from one request to the next: an answer must not depend, not even in its last bit, on
    what was asked before.
    """
    kept = config.dtype or "auto"  # vLLM's auto would make float32 a 16-bit type
    sees = config.get_text_config() is not config
    arguments = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=not sees,  # vLLM's processor of images has a tokenizer of its own
        language_model_only=sees and not has_processor(folder),
        dtype=kept if dtype == "keep" else dtype,
        max_model_len=-1 if context(config) < UNLIMITED else LONGEST,
        enable_prefix_caching=False,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **(CPU if current_platform.is_cpu() else {}),
        **settings,
    )
    return LLMEngine.from_engine_args(arguments, UsageContext.LLM_CLASS)


def answers(
    engine: LLMEngine,
    asked: Mapping[int, tuple[Sequence[int], Parameters]],
    pictures: Mapping[int, Pictures] = NONE,
) -> Iterator[list]:
    """Answer (token ids, parameters): after every step the (index, output) that it finished.

    Of the token ids of a request's `pictures` vLLM makes those that the model sees; they must be the request's, or it is a
    CheckpointError. Raises NoLogitsError if vLLM looks at the logits and finds NaN (VLLM_RAISE_ON_LOGIT_NANS).
    """
    waiting = set(asked)
    try:
        for index, (token_ids, parameters) in asked.items():
            engine.add_request(str(index), _input(engine, token_ids, pictures.get(index)), parameters)
        while waiting:
            outputs = [(int(output.request_id), output) for output in _step(engine) if output.finished]
            waiting.difference_update(index for index, _ in outputs)
            yield outputs
    finally:
        engine.abort_request([str(index) for index in waiting])


def _input(engine: LLMEngine, token_ids: Sequence[int], pictures: Pictures | None) -> Any:
    if pictures is None:
        return tokens_input(list(token_ids))
    shown = {"image": [picture(each) for each in pictures.images]}
    (made,) = engine.renderer.render_cmpl(
        [{"prompt_token_ids": pictures.token_ids, "multi_modal_data": shown}]
    )
    if (theirs := list(made["prompt_token_ids"])) != list(token_ids):
        raise CheckpointError(
            f"{engine.model_config.model}: of a prompt with {len(pictures.images)} images vLLM's processor makes {len(theirs)}"
            f" tokens, and transformers' makes {len(token_ids)} or others; set generate.engine: transformers"
        )
    return made


def _step(engine: LLMEngine) -> list:
    try:
        return engine.step()
    except RuntimeError as error:
        if found := NANS.search(str(error)):
            raise NoLogitsError(int(found[1])) from None
        raise


def stop(owner: Any) -> None:
    """End `owner.engine` and its processes, if it has any, and free its memory."""
    owner.engine.engine_core.shutdown()
    del owner.engine
    cleanup_dist_env_and_memory()
