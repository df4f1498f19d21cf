"""Exchanged pairs and alphas in per cent are told before any job; the miniature's, and what the paper did, pass."""

import json
from pathlib import Path

import pytest
import yaml
from expoflow.checks import parse
from expoflow.checks.slips import check_slips
from expoflow.errors import ConfigError
from expoflow.paths import Results

ROOT = Path(__file__).parents[2]


def config(sft, aligned, **pair):
    return parse(
        {
            "models": {"sft": sft, "aligned": aligned},
            "pairs": {"p": {"sft": "sft", "aligned": "aligned", "alphas": [0.3], **pair}},
            "prompts": {"dev": {"miniature": "dev"}},
        }
    )


@pytest.fixture
def model(tmp_path):
    def make(name, card="", **settings):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
        (tmp_path / name / "README.md").write_text(card)
        return {"path": str(tmp_path / name)}

    return make


def said(config, tmp_path):
    return check_slips(config, Results(tmp_path / "results"))


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_nothing_is_said_of_our_own_configs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    data = yaml.safe_load(path.read_text())
    assert said(parse(data), tmp_path) == []


@pytest.mark.parametrize(
    ("sft", "aligned"),
    [("org/zephyr-7b-dpo", "org/zephyr-7b"), ("org/zephyr-7b-beta", "org/mistral-7b-sft-beta")],
)
def test_names_that_speak_against_a_pair(sft, aligned, tmp_path):
    (note,) = said(config({"hub": sft}, {"hub": aligned}), tmp_path)
    assert note.startswith("WARNING: pairs.p: the model given as ")
    assert sft in note
    assert aligned in note
    assert note.endswith("If sft and aligned were exchanged, correct that")
    assert said(config({"hub": aligned}, {"hub": sft}), tmp_path) == []
    assert said(config({"hub": sft}, {"hub": aligned}, unrelated=True), tmp_path) == []


def test_the_tags_of_a_card_count_as_its_name(model, tmp_path):
    one, other = model("a", "---\ntags: [trl, dpo]\n---\n"), model("b", "---\ntags: [trl, sft]\n---\n")
    assert (
        f"given as sft, {one['path']}, calls itself dpo in its name" in said(config(one, other), tmp_path)[0]
    )
    assert said(config(other, one), tmp_path) == []


def test_an_sft_model_that_names_the_aligned_one_as_its_base_is_refused(model, tmp_path):
    first = model("first")
    by_config = model("second", _name_or_path=first["path"])
    by_card = model("third", f"---\nbase_model: [{first['path']}]\n---\n")
    hub = model("fourth", "---\nbase_model: Org/First-SFT\n---\n")
    for sft, aligned in ((by_config, first), (by_card, first), (hub, {"hub": "org/first-sft"})):
        with pytest.raises(
            ConfigError, match="'sft' was made from 'aligned'; exchange sft and aligned; if this is"
        ):
            said(config(sft, aligned), tmp_path)
        assert said(config(aligned, sft), tmp_path) == []


def test_what_is_trained_here_from_the_aligned_model_is_refused(tmp_path):
    base = {"train": {"recipe": "sft", "data": "miniature"}}
    dpo = {"train": {"recipe": "dpo", "data": "miniature", "from": "aligned"}}
    with pytest.raises(ConfigError, match="'sft' was made from 'aligned'"):
        said(config(dpo, base), tmp_path)


def test_a_model_says_nothing_by_files_that_are_broken(model, tmp_path):
    broken = model("a", "---\n: [\n---\n")
    (tmp_path / "a" / "config.json").write_text("[")
    assert said(config(broken, model("b")), tmp_path) == []


def test_alphas_in_per_cent(tmp_path):
    models = {"hub": "org/a"}, {"hub": "org/b"}
    (note,) = said(config(*models, alphas=[10, 30]), tmp_path)
    assert "pairs.p.alphas: 10, 30: alpha 30 goes 30 times as far" in note
    assert "write 0.3 for 30" in note
    assert said(config(*models, alphas=[0.5, 1.9, -3]), tmp_path) == []
    assert said(config(*models, alphas=[0.5, 1, 8, 32]), tmp_path) == []  # a grid that has grown
