"""Prompt files of every form, and what is wrong with the others."""

import json

import pytest
from expoflow.config import PromptsConfig
from expoflow.errors import DataError
from expoflow.prompts import load, prompt_id, read_file
from expoflow.records import Message


def write(tmp_path, *rows):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_texts_and_conversations(tmp_path):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "é"}]
    read = read_file(write(tmp_path, {"q": "one", "other": 1}, "", {"q": chat}), "q")
    assert [[message.content for message in prompt.messages] for prompt in read] == [["one"], ["s", "é"]]
    assert read[0].prompt_id == prompt_id([Message(role="user", content="one")])


def test_the_id_is_of_the_canonical_messages():
    # sha256 of [{"role":"user","content":"hi"}] by sha256sum
    assert prompt_id([Message(role="user", content="hi")]) == "b03d228fdf33e7c8"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", ":2: not JSON"),
        ([1], ":2: no field 'q' (has: list)"),
        ({"p": 1}, ":2: no field 'q' (has: p); set `field:` to the prompt's"),
        ({"q": " "}, ":2: field 'q' must be a text or a list"),
        ({"q": []}, ":2: field 'q' must be a text or a list"),
        ({"q": [{"role": "user"}]}, ":2: field 'q' must be a text or a list"),
        ({"q": "first"}, ":2: this prompt stands there twice"),
    ],
)
def test_bad_lines_are_named(tmp_path, row, message):
    with pytest.raises(DataError) as error:
        read_file(write(tmp_path, {"q": "first"}, row), "q")
    assert message in str(error.value)


def test_miniature_prompts_know_their_answers():
    dev = load(PromptsConfig(miniature="dev"), seed=3)
    assert len(dev) == 200
    assert all(prompt.meta for prompt in dev)
