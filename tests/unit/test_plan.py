"""`expoflow plan` and the jobs of a dry run agree on what is asked of a cluster."""

import json
import os
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


def bring(folder: Path, config: Config) -> None:
    """Manifests of the models that come from the hub, as large as their names say; `lora` is an adapter."""
    for name, model in config.models.items():
        if model.hub:
            named = estimate._of_name(name, model.hub)
            size = int(named.weights) if named else 200_000_000 if name == "lora" else 14_483_464_192
            files = {"model.safetensors": File(size=size, sha256="0" * 64)}
            weights = folder / "hub" / name
            weights.mkdir(parents=True)
            (weights / "config.json").write_text(json.dumps(SHAPE))
            source = {"hub": model.hub, "path": None}
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


def asked(folder: Path, config: Path) -> dict[tuple[str, str], dict[str, int]]:
    """What the jobs of a dry run ask for, by their rule and the pair or model."""
    stubs = folder / "stubs"  # a dry run only looks whether it is there
    (stubs / "deepspeed").mkdir(parents=True)
    (stubs / "deepspeed/__init__.py").touch()
    command = [sys.executable, "-c", SHOWING, "--snakefile", str(ROOT / "Snakefile"), "-n"]
    command += ["--directory", str(folder), "--configfile", str(config), "--", "results/alphas.csv"]
    run = subprocess.run(
        command,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(stubs), "OPENAI_API_KEY": "none"},
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = {}
    for line in (run.stdout + run.stderr).splitlines():
        if line.startswith("JOB "):
            rule, wildcards, given = json.loads(line.removeprefix("JOB "))
            found[rule, wildcards.get("pair") or wildcards.get("model")] = given
    return found


@pytest.fixture(scope="module", params=["paper.yaml", "controlled.yaml", "70b.yaml"])
def run(request, tmp_path_factory):
    """A config, what `expoflow plan` says of it, and what its jobs ask for."""
    folder = tmp_path_factory.mktemp("plan")
    path = folder / "config.yaml"
    shipped = ROOT / "config" / request.param
    path.write_text(shipped.read_text() if shipped.is_file() else yaml.safe_dump(SEVENTY))
    config = checks.parse(yaml.safe_load(path.read_text()))
    bring(folder, config)
    return config, estimate.plan(config, Results.of(folder), online=False), asked(folder, path)


def test_the_plan_says_what_jobs_ask_for(run):
    config, plan, jobs = run
    said = estimate.lines(plan)
    lines = {line.split()[0]: line.split() for line in said[: said.index("")]}
    for name, pair in config.pairs.items():
        for rule, model in (("generate", pair.aligned), ("score", config.reward_model)):
            given = jobs[rule, name]
            _, _, _, gpus, memory, unit, *_ = lines[model]
            assert (given["gpu"], given["nodes"], unit) == (int(gpus), 1, "GB")
            assert float(memory) == pytest.approx(given["mem_mb"] / 1000, abs=0.06)


def test_what_is_trained_from_a_known_base_is_as_large(run):
    config, plan, jobs = run
    for name, model in config.models.items():
        if model.train:
            assert plan.models[name].weights == plan.models[model.base].weights > 0
            assert plan.models[name].says == f"trained from {model.base}"
            assert jobs["train", name]["gpu"] == 4  # as zero3-offload has processes
            assert jobs["train", name]["mem_mb"] > 200_000


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
    trained = [name for name, model in config.models.items() if model.train]
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
