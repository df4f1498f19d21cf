"""A pair whose aligned side is a LoRA adapter, from the command line to the exported model."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from adapters import merged, train
from checkpoints import load
from expoflow.miniature.world import prompts
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.whole]


@pytest.fixture
def own(finished_once, tmp_path):
    """The user's folder: an SFT model, an adapter on it that names it, a reward model and prompts."""
    folder = tmp_path / "own"
    for name in ("sft", "rm"):
        shutil.copytree(finished_once.folder / "results/models" / name, folder / name)
    for name in ("dev", "test"):
        asked = [json.dumps({"prompt": prompt.messages[0].content}) for prompt in prompts(name, 7)[:12]]
        (folder / f"{name}.jsonl").write_text("\n".join(asked))
    train(folder / "sft", folder / "lora", size=0.03, r=4, target_modules=["q_proj", "v_proj", "down_proj"])
    return folder


def expoflow(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "expoflow.cli", *arguments],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_an_adapter_goes_the_way_of_any_aligned_model(own, store):
    asked = ["run", "--aligned", "lora", "--reward-model", "rm", "--prompts", "dev.jsonl", "--alphas", "1,4"]
    asked += ["--test-prompts", "test.jsonl"]
    expoflow(own, *asked, "--", "--cores", "1")
    pair = own / "lora-expo/results/pairs/lora"
    best = json.loads((pair / "best.json").read_text())
    table = list(csv.DictReader((pair / "alphas.csv").read_text().splitlines()))
    assert [row["alpha"] for row in table] == ["-1", "0", "1", "4"]
    assert [float(row["effective_alpha"]) for row in table] == pytest.approx(
        [-1, 0, 1, 4], rel=0.02, abs=0.02
    )
    assert len({row["reward"] for row in table}) > 1
    theta0, theta1 = load(own / "sft"), merged(own / "sft", own / "lora", torch.float64)
    exported = AutoModelForCausalLM.from_pretrained(pair / "expo").state_dict()
    for name, value in theta0.items():
        expected = value.double() + (1 + float(best["alpha"])) * (theta1[name] - value.double())
        torch.testing.assert_close(exported[name], expected.to(value.dtype), rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained(pair / "expo").chat_template
    recipe = json.loads((pair / "expo/recipe.json").read_text())
    manifest = json.loads((own / "lora-expo/results/models/aligned.json").read_text())
    assert recipe["aligned"]["weights"] == {
        name: manifest["files"][name]["sha256"]
        for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    assert recipe["aligned"]["adapter"]["ranks"] == [4]
    variants = {row["variant"] for row in csv.DictReader((pair.parents[1] / "benchmarks.csv").open())}
    assert variants == {"sft", "aligned", "expo", "expo-aligned"}
    # the sweep stores no weights; the aligned variant was benchmarked as a whole model, kept in the store
    assert [path.parent.name for path in pair.rglob("*.safetensors")] == ["expo"]
    (whole,) = (store / "converted").rglob("*.safetensors")
    assert all(torch.equal(value, theta1[name].to(value.dtype)) for name, value in load(whole.parent).items())
    assert "Nothing to be done" in expoflow(own, *asked)


def test_a_config_may_leave_the_base_to_the_adapter(own):
    config = """
models: {my-lora: {path: lora}, reward: {path: rm}}
pairs: {mine: {aligned: my-lora, alphas: [1]}}
prompts: {dev: {file: dev.jsonl}}
reward_model: reward
generate: {max_tokens: 8}
select: {resamples: 200}
"""
    (own / "config.yaml").write_text(config)
    expoflow(own, "run", "--config", "config.yaml", "--", "--cores", "1")
    manifest = json.loads((own / "results/models/my-lora-base.json").read_text())
    assert manifest["folder"] == str(own / "sft")
    weights = sorted(path.parent.name for path in (own / "results/pairs").rglob("*.safetensors"))
    assert weights[-1] == "model"  # stored in the sweep here
    assert "expo" in weights
    assert "missing" not in expoflow(own.parent, "status", "own")
