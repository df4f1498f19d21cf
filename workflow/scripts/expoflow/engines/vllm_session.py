"""Sessions of vLLM: start, answer and stop."""

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

from expoflow.config.engine import EngineConfig
from expoflow.engines.model import Model, Pictures
from expoflow.engines.support import UNLIMITED, context
from expoflow.engines.vision import has_processor, picture
from expoflow.errors import CheckpointError

Parameters = SamplingParams | PoolingParams
NONE: Mapping[int, Pictures] = MappingProxyType({})
AROUND = r"^\d+ validation error.*?Value error, |\(?See (https|the).*|\[type=.*"  # not advice
SAVING = (
    "gpu_memory_utilization",
    "max_num_seqs",
    "max_model_len",
    "out_of_memory",
)  # what vLLM names if memory is short
# The config uses vLLM's own names of settings.
WAYS = "these are keys of the section engine: of the config, as in engine: {gpu_memory_utilization: 0.8, max_model_len: 4096}"
NANS = re.compile(
    r"NaNs detected in logits: \{'(\d+)"
)  # the error by VLLM_RAISE_ON_LOGIT_NANS, with its first request
LONGEST = 32768  # context of a model without a limit: vLLM finds none by itself
# Compiling gains nothing on a CPU. With chunked prefill, requests with a seed crash (vLLM 0.32).
CPU = {"enforce_eager": True, "enable_chunked_prefill": False, "kv_cache_memory_bytes": 1 << 30}


# Otherwise an error inside a step would log all requests, token by token.
logging.getLogger("vllm.logging_utils.dump_input").addFilter(lambda record: False)


class NoLogitsError(Exception):
    """The logits of request `index` are NaN; the session is unusable from then on."""

    def __init__(self, index: int):
        super().__init__(index)
        self.index = index


def start(
    model: Model, config: PretrainedConfig, dtype: str = "keep", folder: Path | None = None, **settings: Any
) -> LLMEngine:
    """Start an engine that takes token ids, with the longest context that fits.

    `dtype` is "keep" for the model's own type. `folder` has everything but the weights, if it is
    not the model's own (`engines.package`). Nothing is cached between requests: an answer must not
    depend on earlier requests, not even in its last bit. Raises CheckpointError if vLLM's error
    names the setting at fault.
    """
    kept = config.dtype or "auto"  # vLLM's auto would turn float32 into a 16-bit type
    sees = config.get_text_config() is not config
    arguments = dict(
        model=str(folder or model.folder),
        trust_remote_code=model.trust_remote_code,
        skip_tokenizer_init=not sees,  # vLLM's image processor needs a tokenizer
        language_model_only=sees and not has_processor(model.folder),
        dtype=kept if dtype == "keep" else dtype,
        enable_prefix_caching=False,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **{**(CPU if current_platform.is_cpu() else {}), **_settings(model, context(config)), **settings},
    )
    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments), UsageContext.LLM_CLASS)
    except (ValueError, RuntimeError) as error:
        if said := _advice(error, model.engine):
            raise CheckpointError(f"{model.folder}: vLLM says: {said}; {WAYS}") from None
        raise


def _settings(model: Model, context: int) -> dict[str, Any]:
    """Return the `engine` section of a model with this `context` in tokens, as vLLM's settings."""
    said = model.engine.model_dump(exclude_none=True)
    most = LONGEST if context >= UNLIMITED else -1  # as many as fit
    return said | {
        "max_model_len": model.engine.max_model_len if model.engine.shortened(context) < context else most
    }


def _advice(error: Exception, engine: EngineConfig) -> str | None:
    """Return vLLM's error in one line if it names a setting or memory; None for other errors."""
    text = " ".join(re.sub(AROUND, "", str(error), flags=re.S).split()).rstrip(".")
    named = re.sub("[^a-z]", "", text.lower())
    names = [*SAVING, *engine.model_dump(exclude_none=True)]
    return text if any(name.replace("_", "") in named for name in names) else None


def answers(
    engine: LLMEngine,
    asked: Mapping[int, tuple[Sequence[int], Parameters]],
    pictures: Mapping[int, Pictures] = NONE,
) -> Iterator[list]:
    """Answer the (token ids, parameters) of `asked`; yield each step's finished (index, output).

    vLLM expands the token ids of a request's `pictures` itself. Raises CheckpointError if the
    result is not the request's token ids, and NoLogitsError if vLLM checks the logits and finds NaN
    (VLLM_RAISE_ON_LOGIT_NANS).
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
            f"{engine.model_config.model}: for a prompt with {len(pictures.images)} images, vLLM's processor makes {len(theirs)}"
            f" tokens, and transformers' makes {len(token_ids)}, or different ones; set generate.engine: transformers"
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
    """Stop `owner.engine` and its processes, if any, and free its memory."""
    owner.engine.engine_core.shutdown()
    del owner.engine
    cleanup_dist_env_and_memory()
