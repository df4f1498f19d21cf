"""The check of a reward model: preferences from files and the world, accuracy by hand and by the world's truth."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from expoflow.benchmarks.rewardbench import SECTIONS, Preferred, measure, preferred, score
from expoflow.checks import parse
from expoflow.config.benchmarks import RewardCheck
from expoflow.config.stages import ScoreConfig, SelectConfig
from expoflow.data.preferences import Preference, gather, miniature
from expoflow.engines.model import Model
from expoflow.errors import ConfigError, DataError
from expoflow.files.records import read_json, write_json
from expoflow.results import Message, Metric
from expoflow.training.loop import reward
from loops import run_loop
from transformers import AutoModelForSequenceClassification, AutoTokenizer

SETTINGS = SelectConfig(resamples=500)


def rows(values: dict[str, list[float]]) -> list[Preferred]:
    return [
        Preferred(row=i, subset=subset, chosen=value, rejected=0.5, value=value)
        for subset, each in values.items()
        for i, value in enumerate(each)
    ]


def test_a_tie_counts_half_and_is_counted():
    assert [preferred(2, 1), preferred(1, 1), preferred(0, 1)] == [1, 0.5, 0]
    metrics = {m.metric: m for m in measure(rows({"a": [1, 0.5, 0, 1], "b": [1, 1]}), SETTINGS)}
    assert list(metrics) == ["accuracy", "ties", "accuracy_a", "accuracy_b"]
    assert (metrics["accuracy"].value, metrics["accuracy"].n) == (pytest.approx(4.5 / 6), 6)
    assert metrics["accuracy"].low < 0.75 < metrics["accuracy"].high <= 1
    assert metrics["accuracy"].standard_error == pytest.approx(np.std([1, 0.5, 0, 1, 1, 1], ddof=1) / 6**0.5)
    assert metrics["ties"].value == pytest.approx(1 / 6)
    assert (metrics["accuracy_a"].value, metrics["accuracy_a"].n) == (0.625, 4)
    assert (metrics["accuracy_b"].low, metrics["accuracy_b"].high) == (1, 1)


def test_a_single_prompt_has_no_standard_error(tmp_path):
    for metric in measure(rows({"a": [1], "b": [1, 0]}), SETTINGS):
        write_json(tmp_path / "metric.json", metric)
        assert read_json(tmp_path / "metric.json", Metric) == metric
        assert (metric.standard_error is None) == (metric.metric == "accuracy_a")


def test_rewardbenchs_own_sections():
    values = {name: [1.0, 1.0] for names in SECTIONS.values() for name in names.split()}
    values["math-prm"] = [0.0, 0.0, 0.0, 0.0]  # counts half of reasoning, whatever its size
    values["alpacaeval-easy"] = [0.0] * 8  # counts by its size: 8 of 16
    metrics = {m.metric: m for m in measure(rows(values), SETTINGS)}
    assert metrics["reasoning"].value == pytest.approx(0.5)
    assert metrics["chat"].value == pytest.approx(0.5)
    assert [metrics["safety"].value, metrics["chat_hard"].value] == pytest.approx([1, 1])
    assert metrics["rewardbench"].value == pytest.approx(0.75)
    assert metrics["rewardbench"].n == len(rows(values))
    del values["donotanswer"]
    assert {"safety", "rewardbench"} & {m.metric for m in measure(rows(values), SETTINGS)} == set()


TABLE = [
    {"question": "a?", "good": "yes.", "bad": "no.", "kind": "x"},
    {"question": "b, c?", "good": 'say "b"', "bad": "", "kind": "y"},
]
COLUMNS = {"prompt": "question", "chosen": "good", "rejected": "bad", "subset": "kind"}


def write(path):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in TABLE))
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, TABLE[0])
            writer.writeheader()
            writer.writerows(TABLE)
    else:
        pq.write_table(pa.Table.from_pylist(TABLE), path)


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.parquet"])
def test_all_three_file_formats_give_the_same(tmp_path, name):
    write(tmp_path / name)
    found = gather(RewardCheck(file=str(tmp_path / name), **COLUMNS), seed=0)
    assert found == [
        Preference(messages=[Message(role="user", content="a?")], chosen="yes.", rejected="no.", subset="x"),
        Preference(
            messages=[Message(role="user", content="b, c?")], chosen='say "b"', rejected="", subset="y"
        ),
    ]


def test_conversations_as_the_hubs_preference_sets_have_them(tmp_path):
    def talk(answer):
        return [{"role": "user", "content": "a?"}, {"role": "assistant", "content": answer}]

    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"chosen": talk("yes"), "rejected": talk("no")}) + "\n")
    (found,) = gather(RewardCheck(file=str(path)), seed=0)
    assert (found.messages, found.chosen, found.rejected) == (
        [Message(role="user", content="a?")],
        "yes",
        "no",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a?", "chosen": "b"}', ":1: no column 'rejected' .has: prompt, chosen."),
        ("nonsense", ":1: not JSON"),
        ("[1]", " row 1: holds a int; write one JSON object per line"),
        ('{"chosen": "b", "rejected": "c"}', ":1: no prompt; give one as column 'prompt'"),
        ('{"prompt": "a", "chosen": [1], "rejected": "c"}', ":1: message 1 of 'chosen' is a int"),
        (
            '{"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": "c"}',
            "end with an answer",
        ),
        (
            '{"prompt": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}], "chosen": "b",'
            ' "rejected": "c"}',
            "column 'prompt' ends with an answer",
        ),
        ("", "has no preferences"),
    ],
)
def test_bad_files_are_named(tmp_path, line, message):
    (tmp_path / "p.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        gather(RewardCheck(file=str(tmp_path / "p.jsonl")), seed=0)


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="correct the path"):
        gather(RewardCheck(file=str(tmp_path / "p.csv")), seed=0)
    (tmp_path / "p.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"is a ZIP archive or a spreadsheet"):
        gather(RewardCheck(file=str(tmp_path / "p.xlsx")), seed=0)
    (tmp_path / "p.parquet").write_text("no")
    with pytest.raises(DataError, match="is no Parquet file"):
        gather(RewardCheck(file=str(tmp_path / "p.parquet")), seed=0)


@pytest.mark.parametrize("settings", [{}, {"file": "a", "miniature": True}])
def test_one_source_is_needed(settings):
    config = {
        "models": {"sft": {"path": "a"}, "aligned": {"path": "b"}, "rm": {"path": "c"}},
        "pairs": {"p": {"sft": "sft", "aligned": "aligned", "alphas": [1]}},
        "prompts": {"dev": {"miniature": "dev"}},
        "reward_model": "rm",
        "reward_check": settings,
    }
    with pytest.raises(ConfigError, match=r"reward_check.*one source is needed"):
        parse(config)


def test_the_miniatures_reward_model_against_plain_transformers(tmp_path):
    run_loop(
        reward,
        tmp_path,
        seed=4,
        examples=400,
        epochs=1,
        cores=1.0,
        cores_epochs=1,
        progress=lambda line: None,
    )
    preferences = list(miniature(4))[:80]
    found = score(Model(folder=tmp_path), preferences, ScoreConfig())

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    right = []
    for each, row in zip(preferences, found, strict=True):
        plain = []
        for text in (each.chosen, each.rejected):
            messages = [{"role": "user", "content": each.messages[0].content}]
            messages.append({"role": "assistant", "content": text})
            ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
            plain.append(model(**ids).logits.item())
        assert [row.chosen, row.rejected] == pytest.approx(plain, abs=1e-4)
        right.append(plain[0] > plain[1] if each.chosen != each.rejected else 0.5)
    metrics = {m.metric: m for m in measure(found, SETTINGS)}
    assert metrics["accuracy"].value == pytest.approx(np.mean(right), abs=0.01)
    assert 0.5 < metrics["accuracy"].value < 1
    assert metrics["accuracy"].n == 80
    assert {"accuracy_fact", "accuracy_list", "accuracy_opposite"} <= set(metrics)


def test_swapped_preferences_are_the_mirror_image(tmp_path):
    run_loop(
        reward,
        tmp_path,
        seed=4,
        examples=200,
        epochs=1,
        cores=1.0,
        cores_epochs=1,
        progress=lambda line: None,
    )
    preferences = list(miniature(4))[:40]
    swapped = [p.model_copy(update={"chosen": p.rejected, "rejected": p.chosen}) for p in preferences]
    one, other = (
        np.mean([row.value for row in score(Model(folder=tmp_path), each, ScoreConfig())])
        for each in (preferences, swapped)
    )
    assert one + other == pytest.approx(1)
