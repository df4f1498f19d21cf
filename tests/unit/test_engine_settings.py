"""The section `engine`: what of it counts, what an engine makes of it, and what memory is reckoned with."""

import json
from pathlib import Path

import pytest
from checkpoints import write_holes
from expoflow import checks
from expoflow.checks.machine import check_sources
from expoflow.config import Config
from expoflow.config.engine import EngineConfig
from expoflow.config.stages import GenerateConfig
from expoflow.dag.resources import Needs
from expoflow.engines.memory import require_memory
from expoflow.engines.model import Model, Request, engine_key
from expoflow.engines.transformers import TransformersEngine
from expoflow.errors import CheckpointError, ConfigError
from expoflow.files.records import provenance, write_json
from expoflow.hosts.head import Head
from expoflow.hosts.task import Task
from expoflow.hosts.width import width
from expoflow.miniature import model as miniature
from expoflow.project import estimate
from expoflow.results import Manifest
from expoflow.scoring.rewards import RewardModel, load, reward_model
from expoflow.system import gpus
from fake_gpus import Gpu, fake_gpus

SMALL = {
    "models": {
        "sft": {"hub": "org/sft-7b"},
        "dpo": {"train": {"recipe": "dpo", "from": "sft", "data": "rows"}},
        "own": {"train": {"recipe": "iterative_dpo", "from": "sft", "data": "rows", "reward_model": "rm"}},
        "rm": {"hub": "org/rm-70b"},
    },
    "datasets": {"rows": {"hub": "org/rows", "split": "train"}},
    "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [0.5]}},
    "prompts": {"dev": {"miniature": "dev"}},
    "reward_model": "rm",
}
USAGE = (
    '{"chat_template": null, "date": "2024-07-26", "pad_token": null, "stop": [], "system": "keep",'
    ' "trust_remote_code": false}'
)
FREE = {"gpu_memory_utilization": 0.8, "max_num_seqs": 4, "enforce_eager": True}
COUNTED = {"max_model_len": 4096, "quantization": "fp8_per_tensor", "kv_cache_dtype": "fp8"}


def config(engine: dict | None = None, models: dict | None = None, **more) -> Config:
    """SMALL with a section `engine`, and with those of some models."""
    changed = {name: {**SMALL["models"][name], "engine": own} for name, own in (models or {}).items()}
    section = {} if engine is None else {"engine": engine}
    return checks.parse({**SMALL, "models": {**SMALL["models"], **changed}, **section, **more})


def test_finished_results_stay_valid_without_the_section_and_with_what_changes_no_response():
    for said in (config(), config({}), config(FREE), config(models=dict.fromkeys(SMALL["models"], FREE))):
        assert {said.usage(name) for name in said.models} == {USAGE}
        assert {usage for name in said.models for usage in said.usages(name).values()} == {USAGE}
        assert said.claims_basis() == config().claims_basis()
        assert [model.canonical() for model in said.models.values()] == [
            model.canonical() for model in config().models.values()
        ]


@pytest.mark.parametrize("name", COUNTED)
def test_what_changes_responses_is_among_the_params_of_what_runs_a_model_alone(name):
    said = config({name: COUNTED[name]})
    for model in said.models:
        assert json.loads(said.usage(model)) == json.loads(USAGE) | {"engine": {name: COUNTED[name]}}
    # a training runs no engine, unless it learns from what the model writes
    assert set(said.usages("dpo").values()) == {USAGE}
    assert said.usages("own") == {"base": said.usage("sft"), "reward_model": said.usage("rm")}


def test_a_model_has_keys_of_its_own_and_takes_others_back():
    said = config(COUNTED | FREE, {"rm": {"quantization": None, "max_model_len": 512, "max_num_seqs": 9}})
    assert said.engine_of("sft") == EngineConfig(**COUNTED, **FREE)
    own = FREE | {"max_num_seqs": 9, "max_model_len": 512, "kv_cache_dtype": "fp8"}
    assert said.engine_of("rm") == EngineConfig(**own)


def test_a_job_gets_both_kinds(monkeypatch, tmp_path):
    said = config(COUNTED, {"rm": FREE})
    monkeypatch.setenv("EXPOFLOW_ENGINE", said.free_engines())
    (tmp_path / "weights").mkdir()
    made = Manifest(
        model="rm", source={}, folder=str(tmp_path / "weights"), files={}, provenance=provenance()
    )
    write_json(tmp_path / "rm.json", made)
    assert reward_model(tmp_path / "rm.json", said.usage("rm")).engine == EngineConfig(**COUNTED, **FREE)
    sft = Model.used("sft", tmp_path, json.loads(said.usage("sft")))
    assert sft.engine == EngineConfig(**COUNTED)
    assert Model.model_validate_json(sft.model_dump_json()) == sft  # as it goes to a host
    monkeypatch.delenv("EXPOFLOW_ENGINE")
    assert reward_model(tmp_path / "rm.json", config().usage("rm")).engine == EngineConfig()


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"gpu_memory_utilization": 90}, "engine.gpu_memory_utilization: 90 is not accepted: must be less than"),
        ({"gpu_memory_utilization": 0}, "engine.gpu_memory_utilization: 0 is not accepted: must be greater"),
        ({"max_num_seqs": 0}, "engine.max_num_seqs: 0 is not accepted"),
        ({"max_model_len": 1.5}, "engine.max_model_len: 1.5 is not accepted"),
        ({"gpu_memory_utilization": True}, "engine.gpu_memory_utilization: True is not accepted"),
        ({"max_num_seqs": True}, "engine.max_num_seqs: True is not accepted"),
        ({"max_model_len": True}, "engine.max_model_len: True is not accepted"),
        ({"enforce_eager": 1}, "engine.enforce_eager: 1 is not accepted"),
        ({"quantization": "awq"}, "engine.quantization: 'awq' is not accepted: must be 'fp8_per_tensor', "),
        ({"kv_cache_dtype": "fp9"}, "engine.kv_cache_dtype: 'fp9' is not accepted: must be "),
        ({"gpu_memory_utilisation": 0.9}, "unknown key .*; did you mean 'gpu_memory_utilization'?"),
    ],
)  # fmt: skip
def test_a_bad_value_is_told_with_what_is_accepted(engine, words):
    with pytest.raises(ConfigError, match=words):
        config(engine)
    with pytest.raises(ConfigError, match=rf"models.rm.*{words}"):
        config(models={"rm": engine})


def test_what_transformers_cannot_do_is_refused_before_any_job(monkeypatch):
    by = {"generate": {"engine": "transformers"}, "score": {"engine": "vllm"}}
    told = problems(config({"kv_cache_dtype": "fp8"}, **by))
    assert [line for line in told if "fp8" in line] == [
        f"models.{name}: engine: {{kv_cache_dtype: fp8}} is vLLM's alone, and transformers runs this; set"
        " generate.engine: vllm (which needs vLLM and a GPU), or remove it"
        for name in ("sft", "dpo")
    ]
    only = config(models={"rm": {"quantization": "mxfp8"}})  # `auto`, where no vLLM is
    assert any("models.rm: engine: {quantization: mxfp8} is vLLM's" in line for line in problems(only))
    assert problems(config(FREE | {"max_model_len": 100}, **by)) == problems(config(**by))


def test_so_are_theory_and_a_benchmark_by_transformers():
    vllm = {"generate": {"engine": "vllm"}, "score": {"engine": "vllm"}}
    engine = {"quantization": "mxfp8"}
    assert not [line for line in problems(config(engine, **vllm)) if "mxfp8" in line]
    (line,) = [each for each in problems(config(engine, theory={}, **vllm)) if "mxfp8" in each]
    assert "remove theory, or remove it" in line
    lines = problems(config(engine, benchmarks={"open_llm": {}}, **vllm))
    assert sum("set benchmarks.open_llm.backend: vllm" in line for line in lines) == 2


def problems(said: Config) -> list[str]:
    try:
        check_sources(said)
    except ConfigError as error:
        return error.problems
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model")
    miniature.save(miniature.new(0), path)
    return path


def test_transformers_takes_what_applies(folder):
    engine = TransformersEngine(Model(folder=folder, engine=EngineConfig(max_model_len=20, max_num_seqs=2)))
    assert engine.context == 20
    sizes, logits = [], engine.model.forward

    def forward(**given):
        sizes.append(len(given["input_ids"]))
        return logits(**given)

    engine.model.forward = forward
    asked = [Request([1, 2, 3 + at], seed=at) for at in range(5)]
    answers = dict(each for step in engine.generate(asked, GenerateConfig(max_tokens=40)) for each in step)
    assert max(sizes) == 2
    assert all(each.tokens <= 17 for each in answers.values())
    engine.close()
    alone = TransformersEngine(Model(folder=folder, engine=EngineConfig(max_model_len=20)))
    again = dict(each for step in alone.generate(asked, GenerateConfig(max_tokens=40)) for each in step)
    assert again == answers
    alone.close()
    assert EngineConfig(max_model_len=100_000).shortened(512) == 512


def test_transformers_refuses_the_rest(folder):
    model = Model(folder=folder, engine=EngineConfig(quantization="mxfp8"))
    with pytest.raises(CheckpointError, match=r"quantization: mxfp8} is vLLM's alone.*score.engine: vllm"):
        TransformersEngine(model)
    with pytest.raises(CheckpointError, match="vLLM's alone"):
        RewardModel(model, None, None, {})


def test_other_settings_are_another_engine(folder):
    plain = Model(folder=folder)
    for settings in (FREE, COUNTED):
        for name, value in settings.items():
            other = Model(folder=folder, engine=EngineConfig(**{name: value}))
            assert engine_key(other, "vllm") != engine_key(plain, "vllm")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this process see GPUs."""

    def make(*shown: Gpu) -> None:
        for name, value in fake_gpus(tmp_path / "gpus", *shown).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        gpus._number.cache_clear()

    yield make
    gpus._number.cache_clear()


CARD = Gpu(free=23_000, total=24_564, name="NVIDIA GeForce RTX 4090")


def test_weights_are_compared_with_the_share_that_the_engine_takes(machine, tmp_path):
    machine(CARD)
    large = Model(folder=write_holes(tmp_path / "model", 16))
    require_memory(large, ["0"], vllm=True)
    low = large.model_copy(update={"engine": EngineConfig(gpu_memory_utilization=0.5)})
    for vllm in (True, False):
        with pytest.raises(CheckpointError, match=r"has 12.9 GB for it .engine.gpu_memory_utilization: 0.5."):
            require_memory(low, ["0"], vllm=vllm)
    # this machine's memory is nobody's share; small enough to fit as float32 too, if that is what this processor computes in
    small = large.model_copy(
        update={
            "folder": write_holes(tmp_path / "small", 1),
            "engine": EngineConfig(gpu_memory_utilization=0.01),
        }
    )
    with pytest.raises(CheckpointError, match=r"engine\.gpu_memory_utilization: 0\.01"):
        require_memory(small, ["0"])
    require_memory(small)


def test_a_gpu_that_something_else_is_on_is_told_with_a_share_that_fits(machine, tmp_path):
    machine(Gpu(free=18_000, total=24_564))
    model = Model(folder=write_holes(tmp_path / "model", 14))
    require_memory(model, ["0"])  # transformers takes what it needs
    words = r"has 18.9 of 25.8 GB free, and vLLM takes 92%; .* engine: .gpu_memory_utilization: 0.71."
    with pytest.raises(CheckpointError, match=words):
        require_memory(model, ["0"], vllm=True)
    require_memory(
        model.model_copy(update={"engine": EngineConfig(gpu_memory_utilization=0.71)}), ["0"], vllm=True
    )


def test_so_is_a_reward_models(machine, tmp_path, monkeypatch):
    machine(Gpu(free=100))
    folder = tmp_path / "reward"
    from transformers import LlamaForSequenceClassification

    shape = miniature.config()
    shape.num_labels = 1
    LlamaForSequenceClassification(shape).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="and vLLM takes 92%"):
        load(Model(folder=folder), "vllm")
    monkeypatch.setattr("expoflow.engines.memory.free_memory", lambda: 1000)
    with pytest.raises(CheckpointError, match=r"its weights need 0.0 GB, this machine has 0.0 GB free"):
        load(Model(folder=folder))


def test_quantised_weights_need_less(machine, tmp_path):
    machine(CARD)
    folder = write_holes(tmp_path / "model", 30)
    for settings, fits in [({}, False), ({"quantization": "fp8_per_block"}, True),
                           ({"quantization": "int8_per_channel_weight_only"}, False)]:  # fmt: skip
        model = Model(folder=folder, engine=EngineConfig(**settings))
        if fits:
            require_memory(model, ["0"], vllm=True)
        else:
            with pytest.raises(CheckpointError, match=r"need 30.0 GB"):
                require_memory(model, ["0"], vllm=True)


@pytest.mark.parametrize(
    ("engine", "gpus"),
    [({}, 4), ({"quantization": "fp8_per_tensor"}, 2), ({"quantization": "mxfp4"}, 1),
     ({"gpu_memory_utilization": 0.4}, 8)],
)  # fmt: skip
def test_gpus_are_asked_for_and_handed_out_by_what_an_engine_holds(engine, gpus, tmp_path):
    """70B of 16 bits: for a cluster, in `expoflow plan`, and on this machine."""
    needs = Needs(config(engine), lambda model: 138_000_000_000)
    assert needs.gpus("rm") == gpus
    head = Head(pid=1, start=1, folder=tmp_path, slots=tuple("01234567"), memory=80_000_000_000)
    model = Model(folder=write_holes(tmp_path / "model", 138), engine=EngineConfig(**engine))
    (model.folder / "config.json").write_text('{"num_attention_heads": 64, "num_key_value_heads": 8}')
    arguments = {"reward_model": model.model_dump(mode="json"), "engine": "vllm"}
    assert width(head, Task(kind="score", arguments=arguments)) == gpus


def test_the_plan_says_what_fits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {}
    for name, engine in {
        "plain": {},
        "small": {"max_model_len": 1024, "kv_cache_dtype": "fp8", "quantization": "fp8_per_block"},
        "low": {"gpu_memory_utilization": 0.5},
    }.items():
        made = estimate.plan(config(engine), online=False)
        told[name] = made.pairs[0].cards, made.reward_cards, made.pairs[0].memory
    assert told["plain"][:2] == ("1 x 24 GB", "4 x 48 GB")
    assert told["small"][:2] == ("1 x 24 GB", "2 x 48 GB")
    assert told["small"][2] < 0.6 * told["plain"][2]
    assert told["low"][:2] == ("1 x 48 GB", "8 x 48 GB")
