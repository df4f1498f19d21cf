"""Training by TRL on the miniature: real processes, killed in the middle and run again; every recipe."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from expoflow.checkpoints import manifests
from expoflow.config.sources import ModelConfig
from expoflow.files.records import read_json, write_json
from expoflow.miniature import model
from expoflow.results import Manifest
from expoflow.system.progress import read
from expoflow.training.loop import reward, sft
from expoflow.training.train import resumable
from expoflow.training.trl.stage import last_checkpoint
from loops import run_loop
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from waiting import wait

pytestmark = pytest.mark.trl
RECIPES = {
    "sft": {"recipe": "sft", "examples": 320, "epochs": 1},
    "grown": {"recipe": "sft", "from": "base", "examples": 256, "epochs": 1},
    "dpo": {"recipe": "dpo", "from": "base", "examples": 640},
    "reward": {"recipe": "reward", "examples": 128, "epochs": 1},
    "iterative": {
        "recipe": "iterative_dpo", "from": "base", "reward_model": "rm", "examples": 320, "iterations": 2,
    },
    "rlhf": {"recipe": "rlhf", "from": "base", "reward_model": "rm", "examples": 96},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with an SFT model and a reward model by the miniature's own loop."""
    folder = tmp_path_factory.mktemp("models")
    options = {"seed": 3, "progress": lambda line: None}
    (folder / "base").mkdir()
    run_loop(sft, folder / "base", examples=600, epochs=2, **options)
    (folder / "rm").mkdir()
    run_loop(reward, folder / "rm", examples=128, epochs=1, cores_epochs=1, **options)
    for name in ("base", "rm"):
        source = ModelConfig(path=str(folder / name))
        write_json(folder / f"{name}.json", manifests.manifest(name, source, folder / name))
    return folder


def start(models: Path, name: str, recipe: str) -> subprocess.Popen:
    script = Path(__file__).with_name("train_one.py")
    return subprocess.Popen([sys.executable, str(script), str(models), name, json.dumps(RECIPES[recipe])])


def trained(models: Path, name: str, recipe: str) -> Manifest:
    status = start(models, name, recipe).wait()
    log = (models / f"{name}.log").read_text()
    assert status == 0, log[-3000:]
    assert sorted(path.name for path in (models / name).iterdir()) == sorted(
        read_json(models / f"{name}.json", Manifest).files
    )
    assert not (models / f".{name}.training").exists()
    assert not [*models.glob("*.progress*")]
    return read_json(models / f"{name}.json", Manifest)


def trainers(folder: Path) -> list[int]:
    """Processes that train in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            any(word.startswith(str(folder).encode()) for word in words)
            and b"expoflow.training.trl.trainers" in words
        ):
            found.append(int(process.name))
    return found


@pytest.mark.parametrize("recipe", ["dpo", "rlhf"])
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(models, recipe):
    whole = trained(models, f"{recipe}-whole", recipe)
    name, work = f"{recipe}-killed", models / f".{recipe}-killed.training"
    job = start(models, name, recipe)
    wait(lambda: last_checkpoint(work / recipe / "checkpoints"))
    assert trainers(work)
    said = read(models / f"{name}.log")  # from the trainer's own process
    assert (said.unit, 0 <= said.done <= said.total) == ("steps", True)
    os.kill(job.pid, signal.SIGKILL)  # the job alone: what it started must not outlive it
    job.wait()
    wait(lambda: not trainers(work), 30)
    assert not (models / name).exists()
    assert not (models / f"{name}.json").exists()
    kept = last_checkpoint(work / recipe / "checkpoints").name
    again = trained(models, name, recipe)
    assert f"resumes from {kept}" in (models / f"{name}.log").read_text()
    assert again.files["model.safetensors"] == whole.files["model.safetensors"]  # bit for bit


def test_a_checkpoint_that_a_kill_cut_is_not_taken(tmp_path):
    for step, state in ((2, "{}"), (10, '{"global_st'), (12, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state:
            (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path).name == "checkpoint-2"


def interrupted(work: Path, key: str) -> None:
    """A training that fails after its first file."""
    with resumable(work, key):
        (work / "stage").touch()
        raise ZeroDivisionError


def test_another_recipe_does_not_go_on_with_what_was_left(tmp_path):
    work = tmp_path / ".model.training"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            interrupted(work, "one")
    with resumable(work, "one"):
        assert (work / "stage").exists()
    assert not work.exists()
    with pytest.raises(ZeroDivisionError):
        interrupted(work, "one")
    with resumable(work, "other"):
        assert not (work / "stage").exists()


@pytest.mark.parametrize("recipe", ["sft", "grown", "iterative"])
def test_every_recipe_gives_an_ordinary_language_model(models, recipe):
    manifest = trained(models, recipe, recipe)
    assert set(manifest.files) == {path.name for path in (models / "base").iterdir()}
    lm = AutoModelForCausalLM.from_pretrained(models / recipe, local_files_only=True)
    settings = model.load(models / "base").config
    for name in (
        "hidden_size",
        "vocab_size",
        "tie_word_embeddings",
        "eos_token_id",
        "pad_token_id",
        "dtype",
        "use_cache",
    ):
        assert getattr(lm.config, name) == getattr(settings, name)
    assert AutoTokenizer.from_pretrained(models / recipe).chat_template
    assert (
        manifest.files["model.safetensors"]
        != read_json(models / "base.json", Manifest).files["model.safetensors"]
    )


def test_the_reward_model_is_an_ordinary_classifier(models):
    manifest = trained(models, "reward", "reward")
    rm = AutoModelForSequenceClassification.from_pretrained(models / "reward", local_files_only=True)
    assert (rm.config.num_labels, rm.config.pad_token_id, rm.config.tie_word_embeddings) == (1, 0, False)
    assert set(manifest.files) >= {"config.json", "model.safetensors", "tokenizer.json"}
