"""Checkpoints from the hub: what is taken, how it is pinned, and that it is found again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import load, same_bits
from expoflow.checkpoints import manifests
from expoflow.errors import CheckpointError, ConfigError
from expoflow.files import hashing
from expoflow.results import Manifest

SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
FILES = sorted([*SHARDS, "config.json", "model.safetensors.index.json", "tokenizer.json"])


def test_the_model_is_taken_and_nothing_else(user, hub):
    manifest = user.get()
    assert sorted(manifest.files) == FILES
    assert manifest.revision == hub.repos["org/model"].branches["main"]
    assert manifest.source == {"hub": "org/model", "revision": "main"}
    assert manifest.folder.startswith(str(user.cache))
    assert {name for name in hub.sent if name} == {*FILES, "README.md"}  # which states the licence
    assert all(
        hashing.sha256(Path(manifest.folder) / name) == file.sha256 for name, file in manifest.files.items()
    )
    assert same_bits(load(Path(manifest.folder)), load(Path(user.folder.parent / "checkpoint")))


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: MIT\n---\n# A model", {"license": "mit"}),
        ("---\nlicense: other\nlicense_name: ours\n---\n", {"license": "other", "license_name": "ours"}),
        ("---\nlicense: other\n---\n", None),
        ("---\nlicense: [mit, gpl]\n---\n", None),
        ("---\nlicense: unknown\n---\n", None),
        ("---\n: no [YAML\n---\n", None),
        ("license: mit", None),
        (None, None),
    ],
)
def test_the_licence_is_what_the_card_states(user, hub, checkpoint, card, licence):
    folder = checkpoint("licensed", shards=1)
    (folder / "README.md").write_text(card) if card else (folder / "README.md").unlink()
    hub.add("org/licensed", folder)
    online = user.get("org/licensed")
    assert online.license == licence
    assert user.get("org/licensed", HF_HUB_OFFLINE="1") == online


def test_the_client_finds_it_in_its_cache(user):
    """What other tools on the machine see: huggingface_hub's own reading of its cache, offline."""
    manifest = user.get()
    code = (
        "from huggingface_hub import hf_hub_download as get, scan_cache_dir\n"
        "print(*[get('org/model', name) for name in ('config.json', 'model.safetensors.index.json')])\n"
        "assert not scan_cache_dir().warnings"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=user.environment(HF_HUB_OFFLINE="1"),
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split()[0] == f"{manifest.folder}/config.json"


def test_one_file_is_preferred_to_shards_and_safetensors_to_pickles(user, hub, checkpoint):
    folder = checkpoint("single", shards=1)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "consolidated.safetensors").write_bytes(b"the same weights again")
    hub.add("org/single", folder)
    assert sorted(user.get("org/single").files) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_pickles_are_taken_where_there_is_nothing_else(user, hub, checkpoint):
    folder = checkpoint("old", shards=1)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.add("org/old", folder)
    assert sorted(user.get("org/old").files) == ["config.json", "pytorch_model.bin", "tokenizer.json"]


def test_a_repository_without_weights_is_refused(user, hub, checkpoint):
    folder = checkpoint("gguf", shards=1)
    (folder / "model.safetensors").rename(folder / "model.gguf")
    hub.add("org/gguf", folder)
    assert user.refused("org/gguf").startswith(
        "error: org/gguf: no model.safetensors or pytorch_model.bin (has: .gitattributes, README.md, "
    )
    assert user.blobs() == []


def test_a_second_download_gets_no_bytes(user, hub):
    first = user.get()
    hub.sent.clear()
    assert user.get() == first
    assert not any(name for name in hub.sent if name)


def test_a_branch_is_pinned_and_its_move_is_told(user, hub, checkpoint):
    old = user.get("org/model", "main")
    new = hub.add("org/model", checkpoint("newer", seed=1))
    assert user.get("org/model", old.revision).files == old.files
    user.manifest.unlink()
    user.get("org/model", "main")
    user_log = user.log.read_text()
    assert "moved" not in user_log  # the pinned commit was asked for in between: another source
    hub.add("org/model", checkpoint("newest", seed=2))
    user.get("org/model", "main")
    newest = hub.repos["org/model"].branches["main"]
    assert (
        f"model 'm': org/model has moved: main was {new} and is now {newest}; to stay with the old one set "
        f"revision: {new}" in user.log.read_text()
    )


def test_offline_it_comes_from_the_cache(user, hub):
    online = user.get()
    hub.stop()
    assert user.get(HF_HUB_OFFLINE="1") == online
    assert user.get("org/model", online.revision, HF_HUB_OFFLINE="1").files == online.files
    user.manifest.unlink()
    (Path(online.folder) / SHARDS[0]).unlink()
    assert f"org/model: {SHARDS[0]} is not in the cache" in user.refused(HF_HUB_OFFLINE="1")
    assert "org/other: revision 'main' is not in the cache" in user.refused("org/other", HF_HUB_OFFLINE="1")


def restored(user, manifest: Manifest, monkeypatch, **more: str) -> Path:
    """What a job, which is offline, has for the folder of a model."""
    for name, value in {**user.environment(HF_HUB_OFFLINE="1", EXPOFLOW_HUB_OFFLINE="0"), **more}.items():
        monkeypatch.setenv(name, value)
    return manifests.model_folder(manifest)


def test_weights_that_are_gone_come_back_by_manifest(user, hub, checkpoint, monkeypatch):
    manifest = user.get()
    hub.add("org/model", checkpoint("newer", seed=1))
    shutil.rmtree(user.cache)
    folder = restored(user, manifest, monkeypatch)
    assert folder == Path(manifest.folder)
    assert {name: hashing.sha256(folder / name) for name in manifest.files} == manifest.sha256s()
    hub.sent.clear()
    restored(user, manifest, monkeypatch, HF_HOME=str(user.folder / "elsewhere"))
    assert not hub.sent  # all is there: nobody asks


def test_weights_that_come_back_otherwise_are_an_error(user, monkeypatch):
    manifest = user.get()
    shutil.rmtree(user.cache)
    file = manifest.files[SHARDS[0]].model_copy(update={"sha256": 64 * "0"})
    other = manifest.model_copy(update={"files": manifest.files | {SHARDS[0]: file}})
    with pytest.raises(
        CheckpointError, match=f"{SHARDS[0]} of org/model at .* has sha256 .*, the manifest 0000"
    ):
        restored(user, other, monkeypatch)


def test_weights_that_are_gone_stay_gone_where_the_user_is_offline(user, monkeypatch):
    manifest = user.get()
    shutil.rmtree(user.cache)
    with pytest.raises(CheckpointError, match=r"'m': is gone .* unset HF_HUB_OFFLINE to download it"):
        restored(user, manifest, monkeypatch, EXPOFLOW_HUB_OFFLINE="1")


def test_a_dry_run_does_not_load_the_client():
    code = "import sys; from expoflow import checks, store; from expoflow.checks import machine; from expoflow.data import prompts; from expoflow.dag import code; print('huggingface_hub' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"hub": "https://huggingface.co/org/model"}, "a repository of the hub is ORG/NAME"),
        ({"path": "here", "revision": "main"}, "revision belongs to hub"),
        ({"hub": "org/model", "trust_remote_code": True}, "set revision to the commit that you have read"),
        ({"hub": "org/model", "revision": "main", "trust_remote_code": True}, "set revision to the commit"),
        ({"hub": "org/model", "path": "here"}, "one source is needed, has path and hub"),
    ],
)
def test_a_config_is_checked(model, problem):
    from expoflow import checks
    from expoflow.config.sources import ModelConfig

    train = {"train": {"recipe": "sft", "data": "miniature"}}
    data = {
        "models": {"sft": train, "dpo": model, "rm": {"hub": "org/rm"}},
        "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [1]}},
        "prompts": {"dev": {"miniature": "dev"}},
        "reward_model": "rm",
    }
    with pytest.raises(ConfigError) as error:
        checks.parse(data)
    (line,) = error.value.problems
    assert line.startswith("models.dpo")
    assert problem in line
    pinned = {"hub": "org/model", "revision": 40 * "a", "trust_remote_code": True}
    assert checks.parse({**data, "models": {**data["models"], "dpo": pinned}})
    assert ModelConfig(**pinned).source == "hub"
