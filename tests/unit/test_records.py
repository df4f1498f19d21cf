"""Files appear whole or not at all, and broken ones are named."""

import math
import os
import signal
import subprocess
import sys

import pytest
from expoflow.errors import DataError
from expoflow.files.atomic import replacing
from expoflow.files.records import (
    from_jsonl,
    read_csv,
    read_json,
    read_jsonl,
    to_jsonl,
    write_csv,
    write_json,
    write_jsonl,
)
from expoflow.results import Generation, Message

ROW = Generation(
    prompt_id="ab",
    sample=0,
    seed=1,
    response='über "x"\n',
    response_tokens=2,
    finish_reason="stop",
    engine="x",
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as file:
            file.write("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_what_a_killed_writer_left_is_removed_by_the_next_and_nothing_else_is(tmp_path):
    path = tmp_path / "file.txt"
    program = (
        "import sys\nfrom expoflow.files.atomic import replacing\n"
        "with replacing(sys.argv[1]) as file:\n print('open', flush=True)\n sys.stdin.read()"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for writer in writers:
        writer.stdout.readline()
    os.kill(writers[0].pid, signal.SIGKILL)
    writers[0].communicate()
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(path) as file:
        file.write("new")
    assert len(list(tmp_path.iterdir())) == 2  # the new file, and that of the writer who lives
    writers[1].communicate()
    assert writers[1].returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_a_line_ends_where_json_lines_end(tmp_path):
    message = Message(role="user", content="one\u2028two\u2029three\x85four\x0cfive")
    assert from_jsonl(to_jsonl([message, message]), Message, "rows") == [message, message]
    assert from_jsonl("", Message, "rows") == []


def test_a_table_that_is_cut_is_named(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, [{"a": 1, "b": "x\ny"}, {"a": 2, "b": None}], ["a", "b"])
    assert read_csv(path) == [{"a": "1", "b": "x\ny"}, {"a": "2", "b": ""}]
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if whole[:size].endswith(b"\n") and whole[:size].count(b'"') % 2 == 0:
            continue  # a table with fewer rows
        with pytest.raises(DataError, match=r"table.csv: not a complete table; delete it and run"):
            read_csv(path)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match=r"folder.json: cannot be read \(Is a directory\); make it readable"):
        read_json(tmp_path / "folder.json", Generation)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"binary.json: is not text; delete the file"):
        read_json(tmp_path / "binary.json", Generation)


def test_rows_read_back(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [ROW, ROW])
    assert read_jsonl(tmp_path / "rows.jsonl", Generation) == [ROW, ROW]
    write_json(tmp_path / "row.json", ROW)
    assert read_json(tmp_path / "row.json", Generation) == ROW


def test_a_cut_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [ROW, ROW])
    path.write_text(path.read_text()[:-10])
    with pytest.raises(DataError, match=r"rows.jsonl:2: Invalid JSON.*delete it and run snakemake again"):
        read_jsonl(path, Generation)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent.json: no such file"):
        read_json(tmp_path / "absent.json", Generation)


def test_csv_cells(tmp_path):
    path = tmp_path / "table.csv"
    row = {"a": 1 / 3, "b": None, "c": math.nan, "d": True, "e": "=1+1", "f": 'x,"y"', "g": -2.5}
    write_csv(path, [row], list("abcdefg"))
    assert path.read_text() == 'a,b,c,d,e,f,g\n0.333333,,,1,\'=1+1,"x,""y""",-2.5\n'
