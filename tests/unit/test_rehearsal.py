"""What `limit` takes of a config's sets, and what says so; and configs that mean the same in any folder."""

import json
from pathlib import Path

import pytest
import yaml
from expoflow import checks
from expoflow.data.first import write_first
from expoflow.files.records import write_csv
from expoflow.project.located import located
from expoflow.reporting import rehearsal
from expoflow.reporting.words import best_lines, certificate_words
from expoflow.results import Best, Certificate

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))
PAIR = {
    "models": {"sft": {"path": "sft"}, "dpo": {"path": "../dpo", "chat_template": "chat.jinja"}},
    "pairs": {"mine": {"sft": "sft", "aligned": "dpo", "alphas": [0.3]}},
    "prompts": {"dev": {"file": "dev.jsonl"}, "test": {"file": "/data/test.jsonl"}},
}

SETS = {
    "lines": ('{"a": 1}\n{"a": 2}\n{"a": 3}\n', '{"a": 1}\n{"a": 2}\n'),
    "one line": ('{"a": 1}\n', '{"a": 1}\n'),
    "list": ("[1, 2, 3]", "[\n  1,\n  2\n]\n"),
    "questions": (
        json.dumps({"questions": [1, 2, 3], "prompts": {"a": 1}}),
        json.dumps({"questions": [1, 2], "prompts": {"a": 1}}, indent=2) + "\n",
    ),
}


@pytest.mark.parametrize("kind", SETS)
def test_the_first_entries_of_a_set(kind, tmp_path):
    whole, first = SETS[kind]
    (tmp_path / "whole").write_text(whole)
    write_first(tmp_path / "whole", tmp_path / "first", 2)
    assert (tmp_path / "first").read_text() == first


@pytest.mark.parametrize(("own", "asked"), [(None, 8), (4, 4), (100, 8)])
def test_a_task_is_asked_no_more_than_the_limit(own, asked):
    harness = {"limit": own} if own else {}
    config = checks.parse({**PAIR, "limit": 8, "benchmarks": {"open_llm": harness}})
    assert config.section("mine", "benchmarks").open_llm.limit == asked
    assert checks.parse({**PAIR, "benchmarks": {"open_llm": harness}}).section(
        "mine", "benchmarks"
    ).open_llm.limit == (own)


def test_the_words_say_that_it_is_a_rehearsal():
    best = Best(pair="p", alpha="1", certified=False, chosen_share=1, edge=False, reason="why")
    known = {
        "pair": "p",
        "alpha": "1",
        "choice": "",
        "certified": False,
        "confidence": 0.95,
        "chosen_on": "dev",
    }
    same = Certificate(**known, held_out=False, rehearsal=4)
    mark = "A REHEARSAL on the first 4 prompts of every set: no result"
    assert certificate_words(same) == f"alpha was chosen and judged on the same prompts; {mark}"
    assert best_lines(best, None, same)[-1].endswith(mark)
    numbers = {"gain": 0.5, "low": 0.4, "high": 0.6, "measure": "reward", "judged_on": "test", "prompts": 4}
    judged = Certificate(**known, held_out=True, rehearsal=4, **numbers)
    told = f"gain 0.50 [0.40, 0.60] on 4 prompts of test that took no part in the choice; {mark}"
    assert certificate_words(judged) == told
    assert mark not in certificate_words(judged.model_copy(update={"rehearsal": None}))


def test_tables_and_texts_say_that_they_are_of_a_rehearsal(tmp_path):
    table, text, latex = tmp_path / "table.csv", tmp_path / "text.md", tmp_path / "table.tex"
    write_csv(table, [{"pair": "=a,b", "value": -1.5}, {"pair": "c"}], ["pair", "value"])
    text.write_text("| a |\n")
    latex.write_text("\\begin{table}\n\\caption{Rewards.}\n")
    before = table.read_text()
    rehearsal.mark([table, text], None)
    assert (table.read_text(), text.read_text()) == (before, "| a |\n")
    rehearsal.mark([table, text, latex], 4)
    assert table.read_text() == 'pair,value,rehearsal\n"\'=a,b",-1.5,4\nc,,4\n'
    assert text.read_text() == "**A REHEARSAL on the first 4 prompts of every set: no result.**\n\n| a |\n"
    marked = "\\caption{\\textbf{A REHEARSAL on the first 4 prompts of every set: no result.} Rewards.}"
    assert latex.read_text() == f"\\begin{{table}}\n{marked}\n"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_located_config_says_the_same(path):
    config = checks.parse(yaml.safe_load(path.read_text()))
    text = yaml.safe_dump(located(config, Path()))
    again = checks.parse(yaml.safe_load(text))
    if path.name != "example.yaml":  # which names files
        assert again == config
    assert located(again, Path("/elsewhere")) == yaml.safe_load(text)


def test_every_path_of_a_config_is_located():
    data = {
        **PAIR,
        "datasets": {"rows": {"file": "rows.jsonl"}},
        "theory": {"preferences": "preferences.jsonl"},
        "reward_check": {"file": "check.csv"},
        "reward_model": "rm",
        "benchmarks": {
            "alpaca_eval": {"reference": "outputs.json", "df_gamed": "df.csv", "annotator": "judges/mine"},
            "mt_bench": {"data": "fastchat"},
            "open_llm": {"data": "hub"},
            "human": {"votes": "votes.jsonl"},
        },
        "tracking": {"mlflow": "runs"},
    }
    rows = {"recipe": "dpo", "from": "sft", "data": "rows"}
    data["models"] = PAIR["models"] | {
        "rm": {"path": "/rm"},
        "own": {"train": rows | {"accelerate": "my.yaml"}},
        "shipped": {
            "train": rows | {"accelerate": "zero3"},
            "resources": {"gpus": 2},
            "engine": {"max_num_seqs": None},
        },
    }
    found = located(checks.parse(data), Path("/home"))
    relative = yaml.safe_dump(data).replace("/home/", "")
    assert yaml.safe_dump(found).replace("/home/", "") == relative
    assert found["models"]["dpo"] == {"path": "/home/../dpo", "chat_template": "/home/chat.jinja"}
    assert found["models"]["own"]["train"]["accelerate"] == "/home/my.yaml"
    assert found["models"]["shipped"]["train"]["accelerate"] == "zero3"
    assert found["prompts"] == {"dev": {"file": "/home/dev.jsonl"}, "test": {"file": "/data/test.jsonl"}}
    assert str(found).count("/home/") == 15
    data["tracking"]["mlflow"] = "http://localhost:5000"
    assert located(checks.parse(data), Path("/home"))["tracking"] == data["tracking"]
