"""The workflow on a pair that lives on a hub."""

import json
import shutil
from pathlib import Path

import pytest
from expoflow.files.records import read_json
from expoflow.hub.headers import FIRST
from expoflow.results import Manifest
from server import Hub
from trained import train_on
from user import MARKER
from workflow.tree import Tree, new_tree

pytestmark = pytest.mark.workflow


@pytest.fixture
def tree(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    train_on(hub, tmp_path / "trained")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", MARKER)
    tree = new_tree(tmp_path / "tree", tmp_path / "kept")
    tree.edit(lambda config: config["models"].update(sft={"hub": "org/sft"}, dpo={"hub": "org/dpo"}))
    return tree


def manifest(tree: Tree, model: str) -> Manifest:
    return read_json(tree.folder / f"results/models/{model}.json", Manifest)


def test_a_pair_that_lives_on_a_hub(tree, hub, tmp_path):
    assert tree.planned()["download"] == 2
    # A dry run looks at the models: headers alone, for the pair and for each.
    assert 0 < sum(hub.sent[name] for name in hub.sent if name.endswith(".safetensors")) <= 4 * FIRST
    tree.snakemake("--cores", "1")
    assert (tree.folder / "results/report.html").is_file()
    assert tree.planned() == {}
    old = manifest(tree, "dpo").revision
    assert old == hub.repos["org/dpo"].branches["main"]

    # The branch moves and the cache is emptied: nothing runs, and a new alpha is of the pinned commit.
    (tmp_path / "trained/dpo/new.txt").write_text("new")
    new = hub.add("org/dpo", tmp_path / "trained/dpo")
    shutil.rmtree(tmp_path / "hf")
    assert tree.planned() == {}
    tree.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(3))
    assert "download" not in tree.planned()
    tree.snakemake("--cores", "1")
    assert manifest(tree, "dpo").revision == old
    assert next((tmp_path / "hf").glob("hub/*dpo/snapshots/*")).name == old

    # Only a forced download takes the new commit, and says so.
    output = tree.snakemake("--cores", "1", "--forcerun", "results/models/dpo.json", "--until", "download")
    assert f"model 'dpo': org/dpo has moved: main was {old} and is now {new}" in output
    assert manifest(tree, "dpo").revision == new

    assert MARKER not in output
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and MARKER.encode() in path.read_bytes()), path


def test_a_model_that_is_not_on_the_hub(tree):
    tree.edit(lambda config: config["models"].update(dpo={"hub": "org/absent"}))
    output = tree.snakemake("--cores", "1", check=False, jobless=True)
    assert "nothing was done:" in output
    assert "pairs.tiny: org/absent: " in output
    assert "has no such model (HTTP 401)" in output
    assert MARKER not in output


def test_a_pair_that_does_not_fit_is_told_before_it_is_downloaded(tree, hub, tmp_path):
    config = tmp_path / "trained/dpo/config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    hub.add("org/dpo", tmp_path / "trained/dpo")
    output = tree.snakemake("--cores", "1", check=False, jobless=True)
    assert "nothing was done:" in output
    assert "pairs.tiny: config num_hidden_layers is 2 in sft and 3 in aligned" in output
    assert not list((tree.folder / "results").glob("models/*.json"))


def test_a_model_that_needs_code_of_its_repository(tree, hub, tmp_path):
    for name in ("sft", "dpo"):
        config = tmp_path / f"trained/{name}/config.json"
        made = json.loads(config.read_text())
        made |= {
            "model_type": "internlm2",
            "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
        }
        config.write_text(json.dumps(made))
        hub.add(f"org/{name}", tmp_path / "trained" / name)
    output = tree.snakemake("--cores", "1", check=False, jobless=True)
    for name in ("sft", "dpo"):
        assert (
            f"models.{name}: internlm2 is run by code of its repository; read it, then set revision" in output
        )


def test_a_model_of_no_use_is_told_before_it_is_downloaded(tree, hub, tmp_path):
    """In a dry run, in the plan, and when the run starts."""
    for model in ("sft", "dpo"):
        config = tmp_path / f"trained/{model}/config.json"
        settings = json.loads(config.read_text())
        config.write_text(
            json.dumps(settings | {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]})
        )
        hub.add(f"org/{model}", tmp_path / "trained" / model)
    for output in (
        tree.snakemake("--dry-run", check=False),
        tree.snakemake("--cores", "1", check=False, jobless=True),
    ):
        assert "models.dpo: " in output
        assert "t5 has an encoder and a decoder, and the sweep of ExPO is only for decoders" in output
    assert "nothing was done:" in output
    assert not list((tmp_path / "hf").glob("hub/*dpo/snapshots/*/*.safetensors"))
