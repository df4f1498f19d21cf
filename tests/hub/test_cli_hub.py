"""The README's section for a pair of one's own, its commands as they stand there, in an empty folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from expoflow.config.sources import ModelConfig
from expoflow.files.records import read_json
from expoflow.hub.headers import FIRST
from expoflow.miniature.world import prompts
from expoflow.results import Manifest
from expoflow.store import remembered
from expoflow.training.train import train
from user import MARKER

pytestmark = pytest.mark.workflow

README = Path(__file__).parents[2] / "README.md"
SECTION = README.read_text().split("## A pair of your own")[1].split("\n## ")[0]
FROM_HUB, FROM_FOLDERS = re.findall(r"^(expoflow run --sft .*)$", SECTION, re.MULTILINE)
RECIPES = {
    "sft": {"recipe": "sft", "data": "miniature", "examples": 200, "epochs": 1},
    "dpo": {"recipe": "dpo", "from": "sft", "data": "miniature", "examples": 100, "learning_rate": 3e-4},
    "reward": {"recipe": "reward", "data": "miniature", "examples": 200, "epochs": 1},
}


@pytest.fixture
def trained(tmp_path):
    """Folders sft, dpo and reward, trained for a moment."""
    for name, recipe in RECIPES.items():
        base = tmp_path / f"trained/{recipe.get('from')}.json"
        needed = {"base": read_json(base, Manifest)} if base.exists() else {}
        train(name, ModelConfig(train=recipe), needed, 7, tmp_path / f"trained/{name}.json")
    return tmp_path / "trained"


@pytest.fixture
def follow(tmp_path, hub):
    """Follow a command of the README in an empty folder; the token must turn up nowhere."""
    folder = tmp_path / "empty"
    folder.mkdir()
    said = []

    def run(command, **environment):
        words = shlex.split(command)
        assert words[0] == "expoflow"
        mine = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": MARKER}
        done = subprocess.run(
            [sys.executable, "-m", "expoflow.cli", *words[1:]],
            cwd=folder,
            env=os.environ | mine | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        said.append(done.stdout)
        return done

    run.folder = folder
    yield run
    assert said
    assert not any(MARKER in each for each in said)
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and MARKER.encode() in path.read_bytes()), path
    assert hub.authorised == []


def test_the_pair_lives_on_the_hub_and_nothing_else_is_said(follow, hub, trained, tmp_path):
    for name, folder in (
        ("HuggingFaceH4/mistral-7b-sft-beta", "sft"),
        ("HuggingFaceH4/zephyr-7b-beta", "dpo"),
    ):
        hub.add(name, trained / folder)
    (tmp_path / "data/data").mkdir(parents=True)
    asked = [each.messages[0].content for each in prompts("dev", 7)[:10]]
    halves = {"00000": asked[:5], "00001": [*asked[5:], asked[0]]}  # one stands there twice
    for number, part in halves.items():
        path = tmp_path / f"data/data/test_gen-{number}-of-00002.parquet"
        pd.DataFrame({"prompt": part, "score": 1.0}).to_parquet(path)
    (tmp_path / "data/README.md").write_text(
        "---\nconfigs:\n- {config_name: default, data_files: [{split: test_gen, path: data/test_gen-*}]}\n---\n"
    )
    data = hub.add("datasets/HuggingFaceH4/ultrafeedback_binarized", tmp_path / "data")
    hub.fault("/api/datasets/", status=503)
    hub.fault("test_gen-00001", cut=1000)

    planned = follow(f"{FROM_HUB} -- --dry-run")
    assert planned.returncode == 0, planned.stdout
    assert hub.requests  # a dry run looks at the models, and reads no weight
    assert sum(hub.sent[name] for name in hub.sent if name.endswith(".safetensors")) <= 4 * FIRST
    done = follow(FROM_HUB)
    assert done.returncode == 0, done.stdout
    results = follow.folder / "zephyr-7b-beta-expo/results"
    log = (results / "logs/prompts/dev.log").read_text()
    assert f"prompts dev: 10 of HuggingFaceH4/ultrafeedback_binarized, test_gen, {data}" in log
    assert (results / "report.html").is_file()
    assert [path.parent.name for path in results.glob("**/*.safetensors")] == ["expo"]
    best = json.loads((results / "pairs/zephyr-7b-beta/best.json").read_text())
    assert "NLL under the aligned model" in best["reason"]
    reason = best["reason"].partition("; the grid ends here")[0]  # of this the last screen makes a command
    assert f"zephyr-7b-beta: best alpha {best['alpha']}: {reason}" in done.stdout
    status = follow("expoflow status zephyr-7b-beta-expo").stdout
    assert re.search("zephyr-7b-beta: likelihood +7 of 7\n", status)
    assert "missing" not in status
    assert "not running" in status
    made = yaml.safe_load((follow.folder / "zephyr-7b-beta-expo/config.yaml").read_text())
    assert made["models"]["aligned"] == {"hub": "HuggingFaceH4/zephyr-7b-beta"}
    assert len(pd.read_csv(results / "alphas.csv")) == 7

    # The hub is gone: the finished run stays finished, and a new alpha comes from the cache.
    hub.stop()
    assert "Nothing to be done" in follow(FROM_HUB).stdout
    plan = follow("expoflow plan --config zephyr-7b-beta-expo/config.yaml --offline")
    assert plan.returncode == 0, plan.stdout
    assert "reward model" not in plan.stdout
    config = follow.folder / "zephyr-7b-beta-expo/config.yaml"
    config.write_text(config.read_text().replace("0.1, ", "0.05, 0.1, "))
    again = follow("expoflow run --config zephyr-7b-beta-expo/config.yaml")
    assert again.returncode == 0, again.stdout
    assert len(pd.read_csv(results / "alphas.csv")) == 8
    hub.start()


def test_the_pair_lies_in_folders(follow, hub, trained):
    for name in RECIPES:
        shutil.copytree(trained / name, follow.folder / "checkpoints" / name)
    for name in ("dev", "test"):
        rows = pd.DataFrame({"prompt": [each.messages[0].content for each in prompts(name, 7)[:10]]})
        rows.to_json(follow.folder / f"{name}.jsonl", orient="records", lines=True)
    for look in ("--dry-run", "-- -n"):
        planned = follow(f"{FROM_FOLDERS} {look}")
        assert planned.returncode == 0, planned.stdout
        assert not (follow.folder / "dpo-expo").exists()
    assert follow(FROM_FOLDERS.replace("expoflow run", "expoflow plan")).returncode == 0
    done = follow(FROM_FOLDERS)
    assert done.returncode == 0, done.stdout
    results = follow.folder / "dpo-expo/results"
    assert remembered(results / "pairs/dpo/expo/model.safetensors")
    assert (results / "report.html").is_file()
    assert [path.parent.name for path in results.glob("**/*.safetensors")] == ["expo"]
    assert "expo-aligned" in (results / "benchmarks.csv").read_text()
    for again in (FROM_FOLDERS, "expoflow run --config dpo-expo/config.yaml"):
        second = follow(again)
        assert second.returncode == 0, second.stdout
        assert "Nothing to be done" in second.stdout
    assert follow("expoflow clean --yes").returncode == 0
    assert "Nothing to be done" in follow(FROM_FOLDERS).stdout
    failed = follow(f"{FROM_FOLDERS} -- --no-such-option")
    assert failed.returncode == 2, failed.stdout  # snakemake's own
    assert hub.requests == []
