"""Prompt files of every form, and what is wrong with the others."""

import codecs
import gzip
import io
import json

import pandas as pd
import pyarrow
import pytest
from expoflow.config.sources import PromptsConfig
from expoflow.data.prompts import load, prompt_id, read
from expoflow.errors import DataError
from expoflow.hub.cards import split_files
from expoflow.results import Message

USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
PART, IMAGE = {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "a.png"}}


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
        ("}", ":2: not JSON (Expecting value); write one JSON object per line"),
        ("{", ":2: an object that spans several lines; write one JSON object per line"),
        ("9" * 5000, ":2: cannot be read (Exceeds the limit"),
        ([1], ":2: holds a list; write one JSON object per line"),
        ({"p": 1}, ":2: no field 'q' (has: p); set `field:` (--field) to the prompt's"),
        ({"q": " "}, ":2: field 'q' must be a text or a list"),
        ({"q": []}, ":2: field 'q' must be a text or a list"),
        ({"q": 3}, ":2: field 'q' must be a text or a list of {role, content} messages, not a int"),
        (
            {"q": '[{"role": "user", "content": "a"}]'},
            ":2: field 'q' is a list of messages that was written as",
        ),
        (
            {"q": "[{'content': 'a', 'role': 'user'}]"},
            ":2: field 'q' is a list of messages that was written as",
        ),
        ({"q": ["a"]}, ":2: message 1 of 'q' is a str; write {role, content}"),
        ({"q": [{"role": "user"}]}, ":2: message 1 of 'q' has no content; write a text"),
        ({"q": [{"content": "a"}]}, ":2: message 1 of 'q' has no role; write user, assistant, system, tool"),
        (
            {"q": [USER, {"role": "human", "content": "a"}]},
            ":2: message 2 of 'q' has role 'human'; write user",
        ),
        ({"q": [{"role": "User", "content": "a"}]}, ":2: message 1 of 'q' has role 'User'; write user"),
        ({"q": [{"role": "critic", "content": "a"}]}, "'critic'; write user, assistant, system, tool"),
        (
            {"q": [USER | {"name": "bob"}]},
            ":2: message 1 of 'q' has 'name', which would be lost; remove the key",
        ),
        ({"q": [CALL, USER]}, ":2: message 1 of 'q' has 'tool_calls', which would be lost; remove the key"),
        (
            {"q": [{"from": "human", "value": "a"}]},
            "from and value (ShareGPT); write role and content, with user",
        ),
        ({"q": [{"role": "user", "content": " \n"}]}, ":2: message 1 of 'q' is empty; write its content"),
        (
            {"q": [{"role": "user", "content": [IMAGE]}]},
            'has content of type \'image_url\'; write {"type": "image"}, and give it beside the messages',
        ),
        ({"q": [{"role": "user", "content": [PART, PART]}]}, "has 2 parts of text, which programs join in"),
        (
            {"q": [{"role": "user", "content": 3}]},
            ":2: message 1 of 'q' has no text as content; write a text",
        ),
        ({"q": [ANSWER]}, ":2: field 'q' has no message of the user before the answer; name the field"),
        (
            {"q": [{"role": "system", "content": "s"}]},
            ":2: field 'q' has no message of the user; name the field",
        ),
        (
            {"q": [USER, ANSWER, ANSWER]},
            "message 2 of 'q', the last one to be answered, is of role 'assistant'",
        ),
        ({"q": "first"}, ":2: this prompt occurs twice"),
    ],
)
def test_bad_lines_are_named(tmp_path, row, message):
    with pytest.raises(DataError) as error:
        read([write(tmp_path, {"q": "first"}, row)], "q")
    assert message in str(error.value)


def test_conversations_as_the_chat_endpoints_have_them(tmp_path):
    nulls = {"name": None, "tool_calls": None, "function_call": None, "refusal": ""}
    chat = [{"role": "user", "content": [PART | {"image_url": None}]} | nulls, ANSWER | nulls, USER | nulls]
    (prompt,) = read([write(tmp_path, {"q": chat})], "q")
    assert prompt.messages == [Message(**USER), Message(**ANSWER), Message(**USER)]
    assert prompt.prompt_id == prompt_id(prompt.messages)


def test_an_answer_at_the_end_is_left_out_and_counted(tmp_path):
    said = []
    other = USER | {"content": "other"}
    path = write(tmp_path, {"q": [USER, ANSWER, other, ANSWER | {"content": ""}]}, {"q": "text"})
    prompts = read([path], "q", say=said.append)
    assert [message.content for message in prompts[0].messages] == ["a", "b", "other"]
    assert said == [
        "prompts.jsonl: 1 of 2 conversations end with an answer, which is left out: the prompt is everything before it"
    ]
    with pytest.raises(DataError, match=":2: this prompt occurs twice"):
        read([write(tmp_path, {"q": [USER, ANSWER]}, {"q": "a"})], "q")


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    "suffix", [".jsonl", ".csv", ".tsv", ".parquet", ".json", ".JSONL", ".CSV", ".PARQUET", ".txt", ""]
)
def test_every_format_gives_the_same_prompts(tmp_path, suffix, packed):
    path = tmp_path / f"prompts{suffix}{packed if suffix.islower() else packed.upper()}"
    rows = [{"q": f"Tell me, NA or {n}?\n", "n": n} for n in range(9)]
    path.write_bytes(pack(encoded(suffix.lower(), rows), packed))
    source = PromptsConfig(file=str(path), field="q")
    prompts = load(source, 0)
    assert [prompt.messages[0].content for prompt in prompts] == [row["q"] for row in rows]
    drawn = load(source.model_copy(update={"subset": 4}), 0)
    assert len(drawn) == 4
    assert drawn == [prompt for prompt in prompts if prompt in drawn]
    assert drawn != load(source.model_copy(update={"subset": 4, "seed": 1}), 0)
    assert load(source.model_copy(update={"subset": 40}), 0) == prompts


def encoded(suffix: str, rows: list[dict]) -> bytes:
    """A file of that format, by other programs than the reader; text begins with a BOM, as some write it."""
    table, file = pd.DataFrame(rows), io.BytesIO()
    if suffix == ".parquet":
        table.to_parquet(file)
    elif suffix in (".csv", ".tsv"):
        table.to_csv(file, index=False, sep="," if suffix == ".csv" else "\t", encoding="utf-8-sig")
    else:
        lines = json.dumps(rows, indent=1) if suffix == ".json" else "\r\n".join(map(json.dumps, rows))
        file.write(codecs.BOM_UTF8 + lines.encode())
    return file.getvalue()


def pack(data: bytes, packed: str) -> bytes:
    if packed == ".zst":
        target = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(target, "zstd") as file:
            file.write(data)
        return target.getvalue().to_pybytes()
    return gzip.compress(data, mtime=0) if packed else data


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_packed_file_that_is_cut_is_no_shorter_one(tmp_path, packed):
    path = tmp_path / f"p.jsonl{packed}"
    whole = pack("".join(json.dumps({"q": str(n)}) + "\n" for n in range(100)).encode(), packed)
    for end in (3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=f"p.jsonl{packed}' cannot be unpacked .*: copy or pack it again"):
            read([path], "q")


def test_an_array_is_read_whatever_the_file_is_called(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps([{"q": "a"}, {"q": "b"}], indent=2))
    assert len(read([path], "q")) == 2
    path.write_text(json.dumps([{"q": "a"}, {"p": "b"}]))
    with pytest.raises(DataError, match=r"p\.jsonl row 2: no field 'q'"):
        read([path], "q")


def test_conversations_in_parquet(tmp_path):
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    pd.DataFrame({"q": [chat[:1]], "messages": [chat]}).to_parquet(tmp_path / "p.parquet")
    (prompt,) = read([tmp_path / "p.parquet"], "q")
    assert prompt.messages[0].content == "one"
    assert read([tmp_path / "p.parquet"], "messages") == [prompt]


# The time that gzip writes would give the test another name in every process.
PACKED_TWICE = gzip.compress(gzip.compress(b"q", mtime=0), mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.parquet", b"q", "is no Parquet file"),
        ("p.csv", b'q\n"a', r"is no CSV file \(unexpected end of data\)"),
        ("p.csv", b"q,r\n1\n", "row 1 does not have 2 fields"),
        ("p.csv", b"q\n1,2\n", "row 1 does not have 1 fields"),
        ("p.csv", b"q;r\na;b\n", "its columns are separated by ';', not by ','"),
        ("p.csv", b"q,q\na,b\n", "has the column 'q' twice; rename or remove one"),
        ("p.csv", b"q\n", "has no prompts"),
        ("p.json", b"[1, {]", "not JSON"),
        (
            "p.json",
            b'[\n{"q": "a"},\n{"q": "b}\n]',
            "not JSON .Invalid control character at at line 3.; write",
        ),
        ("p.json", b'{\n "data": [{"q": "a"}]\n}', ":1: an object that spans several lines"),
        ("p.jsonl", b"[1]\n[2]\n", ":1: holds a list; write one JSON object per line"),
        (
            "p.jsonl",
            '{"q": "é"}'.encode("utf-16"),
            "is UTF-16 text, but its name says .jsonl; save it",
        ),
        ("p.csv", "q\na\n".encode("utf-32"), "is UTF-32 text, but its name says .csv"),
        ("p.jsonl", b'{"q": "a"}\n{"q": "caf\xe9"}', r":2: is not UTF-8 \(byte 0xe9\); save it in UTF-8"),
        ("p.csv", b"q\ncaf\xe9\n", r":2: is not UTF-8 \(byte 0xe9\)"),
        ("p.jsonl", gzip.compress(b"{}", mtime=0), "is packed by gzip, .* let its name end in .gz"),
        ("p.jsonl.gz", b'{"q": "a"}', "cannot be unpacked"),
        ("p.csv.gz", PACKED_TWICE, "is packed by gzip, but its name says .csv"),
        ("p.jsonl.zst", gzip.compress(b"{}", mtime=0), "is packed by gzip, but its name says .zst"),
        (
            "p.csv",
            b"PAR1....",
            "is a Parquet file, but its name says .csv; let its name end in .parquet",
        ),
        ("p.csv", b"PK\x03\x04....", "is a ZIP archive or a spreadsheet, .* save its table as .csv"),
        ("p.xlsx", b"\xd0\xcf\x11\xe0", "is not UTF-8 .* give a .jsonl, .json, .csv, .tsv or .parquet file"),
        ("none.csv", None, "cannot read '.*': No such file or directory"),
        ("folder.jsonl", "folder", "cannot read '.*': Is a directory; correct the path"),
    ],
)
def test_a_file_that_is_broken(tmp_path, name, content, message):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
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
PACKED = ["packed.JSONL.gz", "packed.jsonl.zst"]


@pytest.mark.parametrize(
    ("card", "config", "split", "expected"),
    [
        (CARD, None, "test_gen", NAMES[2:4]),
        (CARD, "small", "test_gen", NAMES[4:6]),
        (CARD, None, "test", "no split 'test'; its splits are train, test_gen"),
        (CARD, "tiny", "test", "no configuration 'tiny'; its configurations are default, small"),
        ("", None, "train", NAMES[1:2]),
        ("", None, "packed", PACKED[:1]),
        ("---\na: [\n---\n", None, "test_gen", NAMES[2:4]),
        ("", None, "gen", "no Parquet, JSON or CSV files of split 'gen'"),
    ],
)
def test_files_of_a_split(card, config, split, expected):
    if isinstance(expected, list):
        assert split_files(card, NAMES + PACKED, config, split, "org/data") == expected
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


def test_what_says_nothing_to_a_model_is_no_reason_to_refuse(tmp_path):
    rows = [
        {
            "q": [
                {"role": "user", "content": "a", "language": "English", "toxic": False, "turn_identifier": 7}
            ]
        },
        {"q": [{"role": "system", "content": ""}, {"role": "user", "content": "b"}]},
        {"q": '[{"value": 3, "unit": "cm"}]\nTurn this JSON into a table.'},
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read([path], "q")
    assert [[(each.role, each.content) for each in prompt.messages] for prompt in found] == [
        [("user", "a")],
        [("system", ""), ("user", "b")],
        [("user", rows[2]["q"])],
    ]
