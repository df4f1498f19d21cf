"""Prompt files of every form, and what is wrong with the others."""

import json

import pandas as pd
import pytest
from expoflow.config.sources import PromptsConfig
from expoflow.data.prompts import load, prompt_id, read
from expoflow.errors import DataError
from expoflow.hub.cards import split_files
from expoflow.results import Message


def write(tmp_path, *rows):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_texts_and_conversations(tmp_path):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "é"}]
    prompts = read([write(tmp_path, {"q": "one", "other": 1}, "", {"q": chat})], "q")
    assert [[message.content for message in prompt.messages] for prompt in prompts] == [["one"], ["s", "é"]]
    assert prompts[0].prompt_id == prompt_id([Message(role="user", content="one")])


def test_the_id_is_of_the_canonical_messages():
    # sha256 of [{"role":"user","content":"hi"}] by sha256sum
    assert prompt_id([Message(role="user", content="hi")]) == "b03d228fdf33e7c8"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", ":2: not JSON"),
        ([1], ":2: holds a list; write one JSON object a line"),
        ({"p": 1}, ":2: no field 'q' (has: p); set `field:` to the prompt's"),
        ({"q": " "}, ":2: field 'q' must be a text or a list"),
        ({"q": []}, ":2: field 'q' must be a text or a list"),
        ({"q": [{"role": "user"}]}, ":2: field 'q' must be a text or a list"),
        ({"q": [{"role": "assistant", "content": "a"}]}, ":2: field 'q' ends with an answer"),
        ({"q": "first"}, ":2: this prompt stands there twice"),
    ],
)
def test_bad_lines_are_named(tmp_path, row, message):
    with pytest.raises(DataError) as error:
        read([write(tmp_path, {"q": "first"}, row)], "q")
    assert message in str(error.value)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "json"])
def test_every_format_gives_the_same_prompts(tmp_path, suffix):
    path, rows = tmp_path / f"prompts.{suffix}", [{"q": f"Tell me, NA or {n}?\n", "n": n} for n in range(9)]
    if suffix == "jsonl":
        path = write(tmp_path, *rows)
    elif suffix == "json":
        path.write_text(json.dumps(rows))
    elif suffix == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    source = PromptsConfig(file=str(path), field="q")
    prompts = load(source, 0)
    assert [prompt.messages[0].content for prompt in prompts] == [row["q"] for row in rows]
    drawn = load(source.model_copy(update={"subset": 4}), 0)
    assert len(drawn) == 4
    assert drawn == [prompt for prompt in prompts if prompt in drawn]
    assert drawn != load(source.model_copy(update={"subset": 4, "seed": 1}), 0)
    assert load(source.model_copy(update={"subset": 40}), 0) == prompts


def test_conversations_in_parquet(tmp_path):
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    pd.DataFrame({"q": [chat[:1]], "messages": [chat]}).to_parquet(tmp_path / "p.parquet")
    (prompt,) = read([tmp_path / "p.parquet"], "q")
    assert prompt.messages[0].content == "one"
    with pytest.raises(DataError, match="row 1: field 'messages' ends with an answer"):
        read([tmp_path / "p.parquet"], "messages")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.parquet", "q", "is no Parquet file"),
        ("p.csv", 'q\n"a', r"is no CSV file \(unexpected end of data\)"),
        ("p.csv", "q,r\n1\n", "row 1 has not 2 fields"),
        ("p.csv", "q\n1,2\n", "row 1 has not 1 fields"),
        ("p.csv", "q\n", "has no prompts"),
        ("p.json", "[1, {]", "not JSON"),
        ("none.csv", None, "cannot read '.*': No such file or directory"),
    ],
)
def test_a_file_that_is_broken(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read([tmp_path / name], "q")


CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: test_gen, path: data/test_gen-*}
- config_name: small
  data_files: {test_gen: [small/a.jsonl, small/b.jsonl]}
---
# A dataset
"""
NAMES = [
    "README.md", "data/train-00000-of-00001.parquet", "data/test_gen-00000-of-00002.parquet",
    "data/test_gen-00001-of-00002.parquet", "small/a.jsonl", "small/b.jsonl", "test_gen.csv",
]  # fmt: skip


@pytest.mark.parametrize(
    ("card", "config", "split", "expected"),
    [
        (CARD, None, "test_gen", NAMES[2:4]),
        (CARD, "small", "test_gen", NAMES[4:6]),
        (CARD, None, "test", "no split 'test'; its splits are train, test_gen"),
        (CARD, "tiny", "test", "no configuration 'tiny'; its configurations are default, small"),
        ("", None, "train", NAMES[1:2]),
        ("---\na: [\n---\n", None, "test_gen", NAMES[2:4]),
        ("", None, "gen", "no Parquet, JSON or CSV files of split 'gen'"),
    ],
)
def test_files_of_a_split(card, config, split, expected):
    if isinstance(expected, list):
        assert split_files(card, NAMES, config, split, "org/data") == expected
    else:
        with pytest.raises(DataError, match=f"org/data: {expected}"):
            split_files(card, NAMES, config, split, "org/data")


def test_a_split_of_several_configurations_without_a_card():
    names = ["en/train.parquet", "fr/train.parquet"]
    assert split_files("", names, "fr", "train", "org/data") == ["fr/train.parquet"]
    with pytest.raises(DataError, match="train is in en, fr; add config: to choose one"):
        split_files("", names, None, "train", "org/data")


def test_a_split_of_which_a_part_is_missing():
    with pytest.raises(DataError, match="1 of 2 files are there"):
        split_files("", NAMES[:3], None, "test_gen", "org/data")


def test_miniature_prompts_know_their_answers():
    dev = load(PromptsConfig(miniature="dev"), seed=3)
    assert len(dev) == 200
    assert all(prompt.meta for prompt in dev)
