"""Adapters on a hub: what is taken, and the base by the name that the adapter gives it."""

import json
import subprocess
import sys

import pytest
import yaml
from adapters import train
from checkpoints import load, same_bits
from expoflow.extrapolation.tensor_stream import tensors


@pytest.fixture
def adapter(user, hub, tmp_path):
    """org/lora on the hub, trained on org/model."""
    folder = train(tmp_path / "checkpoint", tmp_path / "lora", r=2, target_modules=["q_proj"])
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "org/model"
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_bytes((tmp_path / "checkpoint/tokenizer.json").read_bytes())
    (folder / "optimizer.pt").write_text("no")
    hub.add("org/lora", folder)
    return folder


def expoflow(user, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "expoflow.cli", *map(str, arguments)],
        env=user.environment(**environment),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )


def test_the_adapter_is_taken_and_nothing_else(user, adapter):
    names = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert set(user.get("org/lora").files) == names
    assert set(user.get("org/lora", HF_HUB_OFFLINE="1").files) == names


def test_preflight_finds_the_base_and_downloads_no_weight_of_it(user, hub, adapter):
    done = expoflow(user, "preflight", "--aligned", "org/lora")
    assert done.returncode == 0, done.stdout
    assert "aligned is a LoRA adapter, rank 2" in done.stdout
    assert not [path for path in user.cache.rglob("model-*.safetensors")]


def test_extrapolate_takes_the_base_from_the_cache_and_never_from_the_hub(user, hub, adapter, tmp_path):
    asked = ["extrapolate", "--aligned", adapter, "--alpha", "1", "--out", tmp_path / "out"]
    refused = expoflow(user, *asked)
    assert refused.returncode == 2
    assert "its base model org/model is not in the hub's cache" in refused.stdout
    user.get("org/model")
    before = len(hub.sent)
    done = expoflow(user, *asked)
    assert done.returncode == 0, done.stdout
    assert len(hub.sent) == before
    expected = dict(sorted(tensors(tmp_path / "checkpoint", adapter, 1)))
    assert same_bits(dict(sorted(load(tmp_path / "out").items())), expected)


def test_run_writes_the_base_into_the_config(user, hub, adapter, tmp_path):
    (tmp_path / "dev.jsonl").write_text('{"prompt": "Why?"}\n')
    asked = ["run", "--aligned", "org/lora@main", "--reward-model", tmp_path / "checkpoint"]
    asked += ["--prompts", tmp_path / "dev.jsonl", "--out", tmp_path / "out"]
    done = expoflow(user, *asked)
    assert done.returncode == 1
    assert "models.reward: " in done.stdout  # the models are looked at before any job: that is none
    assert "has no trained head, like a language model" in done.stdout
    assert "models.sft: " in done.stdout  # whose tokenizer the adapter has not, and which has no template
    models = yaml.safe_load((tmp_path / "out/config.yaml").read_text())["models"]
    assert models["sft"] == {"hub": "org/model"}
    assert models["aligned"] == {"hub": "org/lora", "revision": "main"}
