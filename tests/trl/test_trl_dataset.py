"""A model of one's own trained by TRL on a dataset of one's own, through the workflow's rules."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from expoflow.files.records import read_json
from expoflow.miniature import model, tokenizer
from expoflow.results import Manifest
from expoflow.training.loop.steps import messages
from loops import preference_pairs
from safetensors.torch import load_file

pytestmark = pytest.mark.trl
REPOSITORY = Path(__file__).parents[2]
# What refuses a system message and any day but the config's.
STRICT = "{% if messages[0]['role'] == 'system' or strftime_now('%Y') != '1999' %}{{ raise_exception('no') }}{% endif %}"


def make(folder: Path, *targets: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(folder / "config.yaml"), "--cores", "2"]
    run = subprocess.run(
        [*command, *targets],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"EXPOFLOW_STORE": str(folder / "store")},
    )
    logs = [path.read_text()[-3000:] for path in folder.glob("results/logs/train/*.log")]
    assert run.returncode == 0, "\n".join([run.stdout, *logs])
    return run.stdout


def test_dpo_with_lora_on_a_file_in_half_precision(tmp_path):
    sft = model.new(1).to(torch.bfloat16)
    sft.config.dtype = "bfloat16"
    model.save(sft, tmp_path / "sft")
    with open(tmp_path / "feedback.jsonl", "w", encoding="utf-8") as file:
        for pair in preference_pairs(64, 1):
            asked = [{"role": "system", "content": "Be brief."}, *messages(pair.prompt)]
            row = {"prompt": asked[1]["content"]}
            for name in ("chosen", "rejected"):
                row[name] = [*asked, {"role": "assistant", "content": getattr(pair, name)}]
            file.write(json.dumps(row) + "\n")
    recipe = {"recipe": "dpo", "from": "sft", "data": "feedback", "fraction": 0.5, "learning_rate": 1e-2}
    recipe |= {"accelerate": "single", "lora": {"rank": 4}, "batch_size": 16, "per_device": 8}
    (tmp_path / "strict.jinja").write_text(STRICT + tokenizer.CHAT_TEMPLATE)
    config = {
        "date": "1999-12-31",
        "models": {
            "sft": {"path": "sft", "system": "merge", "chat_template": "strict.jinja"},
            "dpo": {"train": recipe},
        },
        "datasets": {"feedback": {"file": "feedback.jsonl"}},
        "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [0.5]}},
        "prompts": {"dev": {"miniature": "dev"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    make(tmp_path, "results/models/dpo.json", "results/pairs/pair/preflight.json")
    manifest = read_json(tmp_path / "results/models/dpo.json", Manifest)
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "sft", tmp_path / "results/models/dpo")
    )
    assert {name: (t.dtype, t.shape) for name, t in after.items()} == {
        name: (t.dtype, t.shape) for name, t in before.items()
    }
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("proj" in name for name in moved)  # the linear layers of the blocks, merged
    assert manifest.source["train"]["data"] == "feedback"
    assert "2 steps" in (tmp_path / "results/logs/train/dpo.log").read_text()

    recipe |= {"per_device": 4, "accelerate": "multi-gpu"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert "Nothing to be done" in make(tmp_path, "--dry-run", "results/models/dpo.json")
