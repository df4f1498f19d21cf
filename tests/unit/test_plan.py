"""`expoflow plan` and the jobs of a dry run agree on what is asked of a cluster."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from expoflow import checks
from expoflow.config import Config
from expoflow.dag.resources import Needs
from expoflow.files.records import provenance, write_json
from expoflow.paths import Results
from expoflow.project import estimate
from expoflow.results import File, Manifest
from expoflow.system import gpus

ROOT = Path(__file__).parents[2]
SHAPE = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "architectures": ["LlamaForCausalLM"],
}
SEVENTY = {
    "models": {
        "sft-70b": {"hub": "org/sft-70b"},
        "lora": {"hub": "org/lora"},
        "trained": {"train": {"recipe": "dpo", "from": "sft-70b", "data": "rows"}},
        "again": {"train": {"recipe": "dpo", "from": "trained", "data": "rows"}},
        "rm-7b": {"hub": "org/rm-7b"},
        "own": {"hub": "org/own-7b", "resources": {"gpus": 2}},
        "tuned": {"train": {"recipe": "dpo", "from": "own", "data": "rows"}},
    },
    "datasets": {"rows": {"hub": "org/rows", "split": "train"}},
    "pairs": {
        "lora": {"sft": "sft-70b", "aligned": "lora", "alphas": [0.3]},
        "trained": {"sft": "sft-70b", "aligned": "again", "alphas": [0.3]},
        "own": {"sft": "own", "aligned": "tuned", "alphas": [0.3]},
    },
    "prompts": {"dev": {"hub": "org/prompts", "split": "test"}},
    "generate": {"prompts": "dev"},
    "reward_model": "rm-7b",
}

# Every source of models, and every rule that runs or trains one.
JUDGE = {"judge": {"base_url": "miniature", "model": "truth"}}
KINDS = {
    "models": {
        "base-7b": {"hub": "org/base-7b"},
        "sft": {"train": {"recipe": "sft", "from": "base-7b", "data": "rows"}},
        "dpo": {
            "train": {"recipe": "dpo", "from": "sft", "data": "rows", "lora": {}, "accelerate": "single"}
        },
        "rm": {
            "train": {"recipe": "reward", "from": "rm-34b", "data": "rows", "accelerate": "zero3"},
            "engine": {"gpu_memory_utilization": 0.5, "quantization": "fp8_per_tensor"},
        },
        "rm-34b": {"hub": "org/rm-34b"},
        "ours-13b": {"path": "ours/sft-13b"},
        "ours-13b-dpo": {"path": "ours/dpo-13b", "engine": {"max_model_len": 2048}},
        "lora": {"path": "ours/lora"},
        "big-70b": {"hub": "org/big-70b", "engine": {"gpu_memory_utilization": 0.45}},
        "big-70b-dpo": {"hub": "org/dpo-70b", "engine": {"gpu_memory_utilization": 0.45}},
        "wide-7b": {"hub": "org/wide-7b", "resources": {"gpus": 2}},
        "wide-dpo": {
            "train": {"recipe": "dpo", "from": "wide-7b", "data": "rows", "accelerate": "multi-gpu"}
        },
        "mini": {"train": {"recipe": "sft", "data": "miniature"}},
        "mini-dpo": {"train": {"recipe": "dpo", "from": "mini", "data": "miniature"}},
    },
    "datasets": {"rows": {"hub": "org/rows", "split": "train"}},
    "pairs": {
        name: {"sft": sft, "aligned": aligned, "alphas": [0.3]}
        for name, (sft, aligned) in {
            "trained": ("sft", "dpo"),
            "ours": ("ours-13b", "ours-13b-dpo"),
            "adapter": ("big-70b", "lora"),
            "big": ("big-70b", "big-70b-dpo"),
            "wide": ("wide-7b", "wide-dpo"),
            "mini": ("mini", "mini-dpo"),
        }.items()
    },
    "prompts": {"dev": {"miniature": "dev"}, "test": {"miniature": "test"}},
    "engine": {"gpu_memory_utilization": 0.9},
    "generate": {"prompts": "dev", "engine": "vllm"},
    "select": {"by": "implicit"},
    "reward_model": "rm",
    "reward_check": {"miniature": True},
    "benchmarks": {
        "reward": {"prompts": "test"},
        "alpaca_eval": {"reference": "miniature", **JUDGE},
        "mt_bench": {"data": "miniature", **JUDGE},
        "open_llm": {"data": "miniature", "tasks": ["miniature_choice"], "backend": "vllm"},
    },
    "theory": {"limit": 2},
}
OURS = {"seventy": SEVENTY, "kinds": KINDS}
ADAPTERS = {"lora": 200_000_000}


def bring(folder: Path, config: Config) -> None:
    """Manifests of the models that are not trained, as large as their names say."""
    for name, model in config.models.items():
        if not model.train:
            named = estimate._of_name(name)
            size = ADAPTERS.get(name) or (int(named.weights) if named else 14_483_464_192)
            files = {"model.safetensors": File(size=size, sha256="0" * 64)}
            weights = folder / "hub" / name
            weights.mkdir(parents=True)
            (weights / "config.json").write_text(json.dumps(SHAPE))
            if name in ADAPTERS:
                files |= {"adapter_config.json": File(size=2, sha256="0" * 64)}
            source = {"hub": model.hub, "path": model.path}
            record = Manifest(
                model=name, source=source, folder=str(weights), files=files, provenance=provenance()
            )
            write_json(folder / f"results/models/{name}.json", record)


# Snakemake with a job's rule, wildcards and resources where its message would stand.
SHOWING = """
import json
from snakemake import cli, logging
logging.DefaultFormatter.format_job_info = lambda self, job: "JOB " + json.dumps(
    [job["rule_name"], dict(job["wildcards"] or {}), dict(job["resources"] or {})], default=str
)
cli.main()
"""


def asked(folder: Path, config: Path) -> list[tuple[str, dict[str, str], dict[str, int]]]:
    """Rule, wildcards and resources of every job of a dry run."""
    stubs = folder / "stubs"  # a dry run only looks whether they are there
    for package in ("deepspeed", "vllm"):
        (stubs / package).mkdir(parents=True)
        (stubs / package / "__init__.py").touch()
    command = [sys.executable, "-c", SHOWING, "--snakefile", str(ROOT / "Snakefile"), "-n"]
    command += ["--directory", str(folder), "--configfile", str(config)]
    run = subprocess.run(
        command,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(stubs), "OPENAI_API_KEY": "none"},
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    lines = (run.stdout + run.stderr).splitlines()
    return [json.loads(line.removeprefix("JOB ")) for line in lines if line.startswith("JOB ")]


LARGE = [pytest.param(name, marks=pytest.mark.long) for name in ("paper.yaml", "controlled.yaml")]


@pytest.fixture(scope="module", params=[*LARGE, "seventy", "kinds"])
def run(request, tmp_path_factory):
    """A config, what `expoflow plan` says of it, and what its jobs ask for."""
    folder = tmp_path_factory.mktemp("plan")
    path = folder / "config.yaml"
    ours = OURS.get(request.param)
    path.write_text(yaml.safe_dump(ours) if ours else (ROOT / "config" / request.param).read_text())
    config = checks.parse(yaml.safe_load(path.read_text()))
    bring(folder, config)
    return config, estimate.plan(config, Results.of(folder), online=False), asked(folder, path)


def models(config: Config, rule: str, wildcards: dict[str, str]) -> list[str]:
    """The models that a job runs; none if it runs no engine."""
    pair = config.pairs.get(wildcards.get("pair"))
    variant = pair and (pair.sft if wildcards.get("variant") == "sft" else pair.aligned)
    if rule in ("generate", "likelihood", "benchmark_mt_bench", "benchmark_open_llm"):
        return [variant]
    if rule in ("score", "rewardbench"):
        return [config.reward_model]
    if rule == "score_by":
        return [wildcards["labeller"]]
    if rule in ("benchmark_reward", "benchmark_alpaca_eval", "theory"):
        return [each for each in (variant, config.reward_model) if each]
    return []


def table(plan: estimate.Estimate, first: str) -> dict[str, list[str]]:
    """The rows of the table whose heading begins so, as words, by their first one."""
    said = estimate.lines(plan)
    begin = next((at for at, line in enumerate(said) if line.startswith(first)), None)
    if begin is None:
        return {}
    return {line.split()[0]: line.split() for line in said[begin + 1 : said.index("", begin)]}


def test_the_plan_says_what_every_job_asks_for(run):
    config, plan, jobs = run
    lines, trainings = table(plan, "model"), table(plan, "training")
    seen = set()
    for rule, wildcards, given in jobs:
        used = models(config, rule, wildcards)
        if rule == "train" and wildcards["model"] in trainings:
            _, gpus, memory, _ = trainings[wildcards["model"]]
        elif used:
            gpus = max(int(lines[each][3]) for each in used)
            memory = max(float(lines[each][4]) for each in used)
        else:
            assert not given.get("gpu")  # nothing else asks for one
            continue
        seen.add(rule)
        assert (given["gpu"], given["nodes"]) == (int(gpus), 1), (rule, wildcards)
        assert given["mem_mb"] / 1000 == pytest.approx(float(memory), abs=0.06), (rule, wildcards)
    assert {"generate", "score"} <= seen


def test_a_pair_with_an_adapter_is_as_large_as_its_sft_model(run):
    _, plan, _ = run
    pairs = {each.pair: each for each in plan.pairs}
    for adapter, same in (("adapter", "big"), ("lora", "trained")):
        if adapter in pairs:
            assert pairs[adapter].exported == pairs[same].exported > 100e9
            assert pairs[adapter].memory == pairs[same].memory


def test_what_fits_has_as_many_gpus_as_a_job(run):
    config, plan, _ = run
    lines = table(plan, "model")
    for each in plan.pairs:
        count = lines[config.pairs[each.pair].aligned][3]
        assert each.cards == "a CPU" if count == "0" else re.fullmatch(f"{count} x (24|48|80) GB", each.cards)
    if plan.reward_memory:
        assert plan.reward_cards.startswith(f"{lines[config.reward_model][3]} x ")


def cards(size: str, **settings) -> str:
    """What a pair of models of this size fits."""
    models = {name: {"hub": f"org/{name}-{size}", **settings} for name in ("sft", "dpo")}
    pairs = {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [0.3]}}
    config = checks.parse(SEVENTY | {"models": models, "pairs": pairs, "reward_model": None, "datasets": {}})
    (pair,) = estimate.plan(config, online=False).pairs
    return pair.cards


def test_what_fits_goes_by_the_rule_of_a_jobs_gpus_and_holds_a_response():
    """34B and 70B fitted 1 and 2 GPUs of 80 GB, and their jobs asked for 2 and 4."""
    assert [cards(size) for size in ("7b", "13b", "34b", "70b")] == [
        "1 x 24 GB",
        "1 x 48 GB",
        "2 x 48 GB",
        "4 x 48 GB",
    ]
    assert cards("70b", resources={"gpus": 3}) == "3 x 80 GB"
    assert cards("70b", resources={"gpus": 1}) == "more than 1 x 80 GB"


def test_what_is_trained_from_a_known_base_is_as_large(run):
    config, plan, jobs = run
    trained = {wildcards["model"]: given for rule, wildcards, given in jobs if rule == "train"}
    for name, model in config.models.items():
        if model.train and not plan.needs.miniature(name):
            assert plan.models[name].weights == plan.models[model.base].weights > 0
            assert plan.models[name].says == f"trained from {model.base}"
            if model.train.accelerate == "zero3-offload":
                assert trained[name]["gpu"] == 4  # as it has processes
                assert trained[name]["mem_mb"] > 200_000


def needs(models: dict, sizes: dict[str, int], pairs: dict | None = None) -> Needs:
    pairs = pairs or {"any": {"sft": next(iter(models)), "aligned": [*models][-1], "alphas": [0.3]}}
    config = Config.model_validate({"models": models, "pairs": pairs, "prompts": {}})
    return Needs(config, lambda name: sizes.get(name, 0))


def test_the_miniature_asks_for_no_gpu_and_everything_else_does():
    mini = {"sft": {"train": {"recipe": "sft", "data": "miniature"}}}
    mini["dpo"] = {"train": {"recipe": "dpo", "from": "sft", "data": "miniature"}}
    mini["rows"] = {"train": {"recipe": "dpo", "from": "dpo", "data": "rows"}}
    small = needs(mini, {"sft": 10**6})
    assert {name: small.gpus(name) for name in mini} == {"sft": 0, "dpo": 0, "rows": 0}
    assert {name: small.training_gpus(name) for name in mini} == {"sft": 0, "dpo": 0, "rows": 0}
    real = {"sft": {"path": "x"}, "dpo": {"train": {"recipe": "dpo", "from": "sft", "data": "rows"}}}
    real["more"] = {"train": {"recipe": "dpo", "from": "dpo", "data": "rows", "accelerate": "single"}}
    large = needs(real, {"sft": 137_953_296_384})
    assert {name: large.gpus(name) for name in real} == {"sft": 4, "dpo": 4, "more": 4}
    assert large.training_gpus("dpo") == 4
    assert large.training_gpus("more") == 1


@pytest.mark.parametrize(
    ("engines", "gpus"),
    [
        ({}, [4, 4]),
        ({"generate": {"engine": "transformers"}}, [1, 4]),
        ({"generate": {"engine": "transformers"}, "score": {"engine": "transformers"}}, [1, 1]),
        ({"generate": {"engine": "transformers"}, "benchmarks": {"open_llm": {}}}, [1, 4]),
        ({"generate": {"engine": "transformers"}, "benchmarks": {"open_llm": {"backend": "vllm"}}}, [4, 4]),
    ],
)
def test_transformers_takes_one_gpu(engines, gpus):
    models = {name: {"path": name} for name in ("sft", "dpo", "rm")}
    pair = {"sft": "sft", "aligned": "dpo", "alphas": [0.3]}
    said = {"models": models, "pairs": {"any": pair}, "prompts": {}, "reward_model": "rm", **engines}
    found = Needs(Config.model_validate(said), lambda name: 137_953_296_384)
    assert [found.gpus("dpo"), found.gpus("rm")] == gpus


def test_what_is_said_of_a_base_holds_for_what_is_trained_from_it():
    models = {"sft": {"path": "x", "resources": {"gpus": 8}}}
    models["dpo"] = {"train": {"recipe": "dpo", "from": "sft", "data": "rows"}}
    models["own"] = {"train": {"recipe": "dpo", "from": "dpo", "data": "rows"}, "resources": {"gpus": 2}}
    found = needs(models, {"sft": 14_000_000_000})
    assert [found.gpus(name) for name in models] == [8, 8, 2]


def test_an_adapter_is_as_large_as_what_it_is_run_on():
    models = {"sft": {"path": "x"}, "lora": {"path": "y"}}
    found = needs(models, {"sft": 137_953_296_384, "lora": 200_000_000})
    assert found.weights("lora") == 137_953_296_384
    assert found.gpus("lora") == 4


def test_checkpoints_of_trainings_are_counted():
    def trained(**recipe):
        return {"train": {"recipe": "dpo", "from": "sft", "data": "rows", **recipe}}

    models = {"sft": {"path": "x"}, "dpo": trained(), "wide": trained(accelerate="multi-gpu")}
    models |= {"rounds": trained(recipe="iterative_dpo", reward_model="sft"), "lora": trained(lora={})}
    found = needs(models, {"sft": 10})
    # A stage has its result and its last checkpoint; one more while that is written. DeepSpeed's has 16-bit weights too.
    assert found.training_disk("dpo") == 10 * (1 + 7 + 7)
    assert found.training_disk("wide") == 10 * (1 + 6 + 6)
    assert found.training_disk("rounds") == 10 * (3 * (1 + 7) + 7)
    assert found.training_disk("lora") == 0
    mini = {"sft": {"train": {"recipe": "sft", "data": "miniature", "trainer": "trl"}}}
    assert needs(mini, {"sft": 10}).training_disk("sft") == 0


def test_the_plan_names_the_disk_of_checkpoints(run):
    config, plan, _ = run
    lines = [line for line in estimate.lines(plan) if line.startswith("disk for checkpoints")]
    trained = [name for name in config.models if name in plan.checkpoints]
    assert len(lines) == bool(trained)
    for line in lines:
        assert f"if all {len(trained)} trainings run at once" in line


@pytest.mark.parametrize(("cores", "threads"), [(64, 8), (16, 4), (2, 1)])
def test_each_process_of_a_training_computes_on_the_cpus_beside_its_gpu(monkeypatch, cores, threads):
    models = {"sft": {"path": "x"}, "dpo": {"train": {"recipe": "dpo", "from": "sft", "data": "rows"}}}
    found = needs(models, {"sft": 10**10})
    monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0+cpu")
    assert found.training_threads("dpo", cores) == 1  # where the result depends on it
    monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert found.training_threads("dpo", cores) == threads


def test_zero3_differs_from_zero3_offload_in_what_it_offloads():
    offload, kept = (
        yaml.safe_load((ROOT / f"config/accelerate/{name}.yaml").read_text())
        for name in ("zero3-offload", "zero3")
    )
    offloads = ("offload_optimizer_device", "offload_param_device")
    assert [kept["deepspeed_config"].pop(name) for name in offloads] == ["none", "none"]
    assert [offload["deepspeed_config"].pop(name) for name in offloads] == ["cpu", "cpu"]
    assert kept == offload
