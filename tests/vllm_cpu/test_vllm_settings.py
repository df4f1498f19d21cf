"""The section `engine`, as vLLM gets it; and what vLLM says if memory is short, as it can be followed in a config."""

import re
from pathlib import Path
from typing import get_args

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

from expoflow.config.engine import CACHED, QUANTISED, EngineConfig
from expoflow.engines import vllm_session
from expoflow.engines.model import Model
from expoflow.engines.vllm import VllmEngine
from expoflow.errors import CheckpointError
from expoflow.extrapolation.options import Options
from expoflow.scoring.rewards import load
from miniatures import answer
from vllm.config.cache import CacheDType
from vllm.config.quantization import ONLINE_QUANT_SHORTHAND_NAMES

pytestmark = pytest.mark.vllm
# vLLM's CPU build has keys and values of eight bits on such processors only.
EIGHT_BITS = re.search(r"\b(avx512f|amx_tile)\b", Path("/proc/cpuinfo").read_text())
SETTINGS = EngineConfig(
    gpu_memory_utilization=0.5,
    max_num_seqs=3,
    max_model_len=100,
    enforce_eager=True,
    quantization="int8_per_channel_weight_only",  # of experts, of which the miniature has none
    kv_cache_dtype="fp8_e5m2" if EIGHT_BITS else "bfloat16",
)


def arrived(engine) -> dict:
    """What vLLM made of the settings."""
    cache, model = engine.vllm_config.cache_config, engine.vllm_config.model_config
    return {
        "gpu_memory_utilization": cache.gpu_memory_utilization,
        "max_num_seqs": engine.vllm_config.scheduler_config.max_num_seqs,
        "max_model_len": model.max_model_len,
        "enforce_eager": model.enforce_eager,
        "quantization": model.quantization,
        "kv_cache_dtype": cache.cache_dtype,
    }


def with_(model: Model, **settings) -> Model:
    return model.model_copy(update={"engine": EngineConfig(**settings)})


def test_the_names_are_vllms():
    assert set(ONLINE_QUANT_SHORTHAND_NAMES) - {"online"} == QUANTISED.keys()
    assert set(get_args(CacheDType)) >= CACHED.keys()


def test_all_settings_arrive_and_alphas_move_under_them(pair, requests):
    half = Options(dtype="bfloat16")  # vLLM quantises no other type

    def at(alpha: float) -> Model:
        return with_(pair.stored(alpha, half, "half"), **SETTINGS.model_dump())

    engine = VllmEngine(at(20))
    try:
        assert arrived(engine.engine) == SETTINGS.model_dump()
        assert engine.context == 100
        first = answer(engine, requests)
        engine.move(at(0))
        assert answer(engine, requests) != first
        engine.move(at(20))
        assert answer(engine, requests) == first
        with pytest.raises(CheckpointError, match="architecture or config differs"):
            engine.move(pair.stored(20, half, "half"))  # for an engine that is set up otherwise
    finally:
        engine.close()


def test_a_context_is_never_longer_than_the_models(pair):
    engine = VllmEngine(with_(pair.streamed(0), max_model_len=100_000))
    try:
        assert engine.context == 512
    finally:
        engine.close()


def test_the_reward_model_has_them_too(reward_folder):
    settings = {"max_num_seqs": 3, "max_model_len": 100}
    scorer = load(with_(Model(folder=reward_folder), **settings), "vllm")
    try:
        assert arrived(scorer.engine).items() >= settings.items()
        assert scorer.context == 100
    finally:
        scorer.close()
    assert load(with_(Model(folder=reward_folder), **settings)).context == 100


@pytest.mark.parametrize(
    ("memory", "settings", "words"),
    [
        (1 << 14, {}, "Cannot auto-fit max_model_len.* Try increasing `gpu_memory_utilization`"),
        (
            3 << 16,
            {"max_model_len": 500},
            r"increasing `gpu_memory_utilization` .* or decreasing `max_model_len`",
        ),
        (1 << 30, {"quantization": "mxfp8"}, "float32 is not supported for quantization"),
    ],
)
def test_what_vllm_advises_can_be_done_here(pair, monkeypatch, memory, settings, words):
    monkeypatch.setitem(vllm_session.CPU, "kv_cache_memory_bytes", memory)
    with pytest.raises(
        CheckpointError, match=rf"{words}.*; .* section engine: of the config, as in"
    ) as refused:
        VllmEngine(with_(pair.streamed(0), **settings))
    assert "\n" not in str(refused.value)
