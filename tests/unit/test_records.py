"""Files appear whole or not at all, and broken ones are named."""

import math

import pytest
from expoflow.errors import DataError
from expoflow.records import (
    Generation,
    read_json,
    read_jsonl,
    replacing,
    write_csv,
    write_json,
    write_jsonl,
)

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
