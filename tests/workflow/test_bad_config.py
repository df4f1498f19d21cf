"""Bad input: one line that names thing, value and remedy, status not 0, before any job runs."""

import json
import math

import pytest
from tree import new_tree

pytestmark = pytest.mark.workflow


def at(path: str, value):
    """A change of the config: set `path` (keys joined by '/') to `value`."""

    def change(config: dict) -> None:
        *parents, last = path.split("/")
        for key in parents:
            config = config[key]
        config[last] = value

    return change


MODEL = {"recipe": "sft", "data": "miniature"}
CASES = {
    "unknown key": (at("generat", {}), "generat: unknown key 'generat'; did you mean 'generate'?"),
    "unknown nested key": (
        at("models/dpo/train/learning_rat", 1),
        "models.dpo.train.learning_rat: unknown key 'learning_rat'; did you mean 'learning_rate'?",
    ),
    "unknown key of a pair's section": (
        at("pairs/tiny/generate", {"temprature": 1}),
        "pairs.tiny.generate.temprature: unknown key 'temprature'; did you mean 'temperature'?",
    ),
    "alpha no number": (
        at("pairs/tiny/alphas", [1, "much"]),
        "pairs.tiny.alphas.1: 'much' is not accepted: an alpha is a finite number such as 0.3",
    ),
    "alpha a truth value": (
        at("pairs/tiny/alphas", [True]),
        "pairs.tiny.alphas.0: True is not accepted: an alpha is a finite number such as 0.3",
    ),
    "alpha twice": (at("pairs/tiny/alphas", [1, 1.0]), "pairs.tiny.alphas: alpha 1 occurs twice; remove one"),
    "alpha NaN": (
        at("pairs/tiny/alphas", [math.nan]),
        "pairs.tiny.alphas.0: nan is not accepted: an alpha is a finite number such as 0.3",
    ),
    "alpha infinite": (
        at("pairs/tiny/alphas", [-math.inf]),
        "pairs.tiny.alphas.0: -inf is not accepted: an alpha is a finite number such as 0.3",
    ),
    "no alphas": (at("pairs/tiny/alphas", []), "pairs.tiny.alphas: must have at least 1 item"),
    "unknown model": (
        at("pairs/tiny/aligned", "dqo"),
        "pairs.tiny.aligned: no model 'dqo'; did you mean 'dpo'?",
    ),
    "unknown reward model": (at("reward_model", "gpt"), "reward_model: no model 'gpt'; known: sft, dpo, rm"),
    "a language model as reward model": (
        at("reward_model", "dpo"),
        "reward_model: 'dpo' is a language model; name one with recipe: reward",
    ),
    "a reward model in a pair": (
        at("pairs/tiny/aligned", "rm"),
        "pairs.tiny.aligned: 'rm' is a reward model; name a language model",
    ),
    "same model twice": (at("pairs/tiny/aligned", "sft"), "pairs.tiny: sft and aligned are both 'sft'"),
    "two sources": (
        at("models/sft/path", "somewhere"),
        "models.sft: one source is needed, has train and path; give one of train, path",
    ),
    "no source": (
        at("models/sft", {}),
        "models.sft: one source is needed, has none; give one of train, path",
    ),
    "no such folder": (
        at("models/rm", {"path": "nowhere"}),
        "models.rm.path: no folder 'nowhere'; correct the path",
    ),
    "no checkpoint": (
        at("models/rm", {"path": "empty"}),
        "models.rm.path: 'empty' is not a checkpoint: config.json is missing; name a Hugging Face model folder",
    ),
    "no prompt file": (
        at("prompts/dev/file", "absent.jsonl"),
        "prompts.dev.file: cannot read 'absent.jsonl': No such file or directory; correct the path",
    ),
    "empty prompt file": (
        at("prompts/dev/file", "empty.jsonl"),
        "prompts.dev.file: 'empty.jsonl' has no prompts; write one row, or one line with a JSON object, for each",
    ),
    "prompt file not JSON": (
        at("prompts/dev/file", "text.jsonl"),
        "prompts.dev.file: text.jsonl:2: not JSON",
    ),
    "prompts without the field": (
        at("prompts/dev/field", "question"),
        "prompts.dev.file: dev.jsonl:1: no field 'question' (has: prompt_id, prompt); set `field:` (--field) to the prompt's",
    ),
    "prompt twice": (
        at("prompts/dev/file", "twice.jsonl"),
        "prompts.dev.file: twice.jsonl:2: this prompt occurs",
    ),
    "vllm without vllm": (
        at("generate/engine", "vllm"),
        "generate.engine: vllm is not installed; pip install 'expoflow[gpu]', or take transformers",
    ),
    "no tokens to generate": (
        at("generate/max_tokens", 0),
        "generate.max_tokens: 0 is not accepted: must be greater than or equal to 1",
    ),
    "a chat template that is not there": (
        at("models/sft/chat_template", "mine.jinja"),
        "models.sft.chat_template: 'mine.jinja' cannot be read",
    ),
    "temperature below 0": (
        at("generate/temperature", -0.5),
        "generate.temperature: -0.5 is not accepted: must be greater than or equal to 0",
    ),
    "confidence 1": (at("select/confidence", 1), "select.confidence: 1 is not accepted: must be less than 1"),
    "confidence 0": (
        at("select/confidence", 0),
        "select.confidence: 0 is not accepted: must be greater than 0",
    ),
    "cycle": (
        at("models/sft/train", {"recipe": "dpo", "from": "dpo", "data": "miniature"}),
        "models.sft.train: cycle sft -> dpo -> sft; let one of them start from another model",
    ),
    "names equal but for case": (
        at("models/RM", {"train": MODEL}),
        "models.RM: differs from 'rm' only in case; rename one",
    ),
    "name with a slash": (
        lambda config: config["models"].update({"a/b": {"train": MODEL}}),
        "models.a/b: 'a/b' is not accepted: a name is letters",
    ),
    "name with a space": (
        at("models/my model", {"train": MODEL}),
        "models.my model: 'my model' is not accepted: a name",
    ),
    "name that climbs": (
        at("models/..", {"train": MODEL}),
        "models...: '..' is not accepted: a name is letters",
    ),
    "no pairs": (at("pairs", {}), "pairs: must have at least 1 item"),
    "a figure of an unknown pair": (
        at("figures", {"figure6": {"kind": "curves", "pairs": ["tinny"]}}),
        "figures.figure6.pairs: no pair 'tinny'; did you mean 'tiny'?",
    ),
    "an unknown kind of figure": (
        at("figures", {"figure6": {"kind": "curve"}}),
        "figures.figure6.kind: 'curve' is not accepted: must be 'sweep', 'curves', 'path', 'histograms', 'bars',"
        " 'first_order', 'cosines' or 'plane'",
    ),
    "a figure that is no file name": (
        at("figures", {"figure 6": {"kind": "sweep"}}),
        "figures.figure 6: 'figure 6' is not accepted: a name",
    ),
    "chosen by rewards that nobody gives": (
        lambda config: config.pop("reward_model") and config["select"].update(by="reward"),
        "pairs.tiny.select.by: reward needs reward_model; add it, or set by: nll",
    ),
    "the figures of appendix C without rewards": (
        lambda config: config.pop("reward_model") and config.update(figures={"c": {"kind": "histograms"}}),
        "figures.c: shows rewards and needs reward_model; add it, or remove the figure",
    ),
    "no data": (
        at("models/dpo/train/fraction", 0.001),
        "models.dpo.train: fraction 0.001 of 400 examples is none",
    ),
}


@pytest.fixture
def tree(tmp_path):
    tree = new_tree(tmp_path / "tree", tmp_path / "store")
    (tree.folder / "empty").mkdir()
    (tree.folder / "empty.jsonl").write_text("\n")
    (tree.folder / "text.jsonl").write_text(json.dumps({"prompt": "a"}) + "\nno JSON\n")
    (tree.folder / "twice.jsonl").write_text(2 * (json.dumps({"prompt": "a"}) + "\n"))
    return tree


@pytest.mark.parametrize("case", CASES)
def test_a_bad_config_is_told_before_any_job(tree, case):
    change, expected = CASES[case]
    tree.edit(change)
    output = tree.snakemake("--cores", "1", check=False, jobless=True)
    assert [line for line in output.splitlines() if line.startswith(expected)], output
    assert "Traceback" not in output
    assert not (tree.folder / "results").exists()


def test_all_problems_are_told_at_once(tree):
    tree.edit(at("generate/temperature", -1))
    tree.edit(at("pairs/tiny/alphas", ["x"]))
    tree.edit(at("selct", {}))
    output = tree.snakemake("--cores", "1", check=False, jobless=True)
    for start in ("generate.temperature: -1", "pairs.tiny.alphas.0: 'x'", "selct: unknown key"):
        assert any(line.startswith(start) for line in output.splitlines()), output


def test_a_repeated_key_is_told_with_its_line(tree):
    path = tree.folder / "config.yaml"
    path.write_text(path.read_text() + "reward_model: rm\n")
    lines = path.read_text().count("\n")
    output = tree.snakemake("--cores", "1", check=False, jobless=True)
    assert f"config.yaml:{lines}: key 'reward_model' occurs twice; rename or remove one" in output


def test_finished_sources_are_not_looked_at_again(finished):
    (finished.folder / "dev.jsonl").unlink()
    assert finished.planned() == {}
