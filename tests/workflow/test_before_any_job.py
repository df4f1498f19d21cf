"""What is wrong with a model is said before any job, in every kind of start; and looked at once."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from expoflow import checks
from expoflow.checks import early
from safetensors.torch import load_file, save_file
from tree import Tree, new_tree, write_prompts

pytestmark = [pytest.mark.workflow, pytest.mark.long]

GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
)


def config(folder: Path, **settings) -> None:
    path = folder / "config.json"
    changed = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))


def weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {change(name): tensor for name, tensor in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def refuse_system(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(GEMMA + path.read_text())


LABELS = {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
# A model's name here, what it is made of, what is wrong with it, and what is said.
WRONG = {
    "compiled": ("dpo", lambda at: weights(at, lambda name: f"_orig_mod.{name}"), "named _orig_mod."),
    "deeper": ("dpo", lambda at: config(at, num_hidden_layers=5), "more layers than its files"),
    "class": ("dpo", lambda at: config(at, model_type="mamba"), "tensors that its class needs are not in"),
    "encoder": ("dpo", lambda at: config(at, model_type="t5"), "has an encoder and a decoder"),
    "short": ("dpo", lambda at: config(at, max_position_embeddings=4), "have 4 tokens or more"),
    "system": ("dpo", refuse_system, "System role not supported); set `system: merge` or `system: drop`"),
    "untemplated": ("dpo", lambda at: (at / "chat_template.jinja").unlink(), "has no chat template"),
    "labels": ("rm", lambda at: config(at, **LABELS), "has 2 logits by its config.json"),
    "unpadded": ("rm", lambda at: config(at, pad_token_id=None), "give its padding token as `pad_token:`"),
    "headless": ("rm", lambda at: weights(at, lambda name: name.replace("score", "x")), "no trained head"),
}


@pytest.fixture
def tree(finished_once: Tree, tmp_path: Path) -> Tree:
    """A pair and a reward model in folders, nothing made yet."""
    tree = new_tree(tmp_path / "tree", tmp_path / "kept")
    for name in ("sft", "dpo", "rm"):
        shutil.copytree(finished_once.folder / "results/models" / name, tree.folder / name)
    tree.edit(lambda config: config.update(models={name: {"path": name} for name in ("sft", "dpo", "rm")}))
    return tree


def with_wrong_models(tree: Tree) -> None:
    """A pair for every wrong language model; the wrong reward models score in configs of their own."""
    rows = [
        {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]},
    ]
    with open(tree.folder / "dev.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    for name, (made_of, break_it, _) in WRONG.items():
        break_it(Path(shutil.copytree(tree.folder / made_of, tree.folder / name)))

    def change(config: dict) -> None:
        for name, (made_of, *_) in WRONG.items():
            config["models"][name] = {"path": name}
            if made_of == "dpo":
                config["pairs"][name] = {"sft": "sft", "aligned": name, "alphas": [1]}

    tree.edit(change)


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_made(tree, monkeypatch):
    with_wrong_models(tree)
    output = tree.snakemake("--cores", "1", check=False)
    for name, (made_of, _, words) in WRONG.items():
        if made_of == "dpo":
            assert any(
                line.startswith(f"models.{name}: ") and words in line for line in output.splitlines()
            ), name
    assert "Traceback" not in output
    assert not (tree.folder / "results").exists()
    monkeypatch.chdir(tree.folder)
    monkeypatch.setenv("EXPOFLOW_STORE", str(tree.store))
    given = yaml.safe_load((tree.folder / "config.yaml").read_text())
    for name, (made_of, _, words) in WRONG.items():
        if made_of == "rm":
            one = {**given, "pairs": {"tiny": given["pairs"]["tiny"]}, "reward_model": name}
            with pytest.raises(checks.ConfigError) as refused:
                early.check_models(checks.parse(one))
            assert [line for line in str(refused.value).splitlines() if f"models.{name}: " in line]
            assert words in str(refused.value)


def test_what_was_found_right_is_not_looked_at_again(tree, monkeypatch):
    assert tree.planned()["generate"] == 4  # a dry run looks too
    monkeypatch.chdir(tree.folder)
    monkeypatch.setenv("EXPOFLOW_STORE", str(tree.store))
    given = yaml.safe_load((tree.folder / "config.yaml").read_text())
    asked = []
    look = early._asked
    monkeypatch.setattr(early, "_asked", lambda questions: asked.append([*questions]) or look(asked[-1]))
    early.check_models(checks.parse(given))
    assert asked == []
    given["models"]["dpo"]["system"] = "drop"  # one model is used otherwise
    early.check_models(checks.parse(given))
    config(tree.folder / "sft", rms_norm_eps=2e-5)  # another one has changed
    early.check_models(checks.parse(given))
    assert [[each.name for each in questions] for questions in asked] == [["dpo"], ["sft"]]


def test_prompts_that_are_too_long_are_counted(tree, monkeypatch):
    monkeypatch.chdir(tree.folder)
    monkeypatch.setenv("EXPOFLOW_STORE", str(tree.store))
    write_prompts(tree.folder / "dev.jsonl", "dev")
    rows = (tree.folder / "dev.jsonl").read_text()
    (tree.folder / "dev.jsonl").write_text(rows + json.dumps({"prompt": "why " * 600}) + "\n")
    given = yaml.safe_load((tree.folder / "config.yaml").read_text())
    with pytest.raises(
        checks.ConfigError, match=r"models\.dpo: 1 of 25 prompts of 'dev' have 512 tokens or more"
    ):
        early.check_models(checks.parse(given))
    given["generate"]["too_long"] = "skip"
    notes = early.check_models(checks.parse(given))
    assert any("models.dpo: 1 of 25 prompts" in note and "generate.too_long: skip" in note for note in notes)
    assert any("models.rm: 1 of 25 prompts" in note and "they are cut" in note for note in notes)
