"""The page has the cells of the matrix, and says of every one what was seen or why there is nothing to see."""

import re

import pytest
from matrix import LOCAL, REASONS, SLURM, cells
from reliability import PAGE, WORDS, write


def shown() -> dict[tuple[str, str], str]:
    """What the tables of the page say, by stage and fault."""
    found, faults = {}, []
    for line in re.findall(r"^\| (.+) \|$", PAGE.read_text(), re.MULTILINE):
        first, *rest = line.split(" | ")
        if first == "stage":
            faults = rest
        elif faults and first != "---":
            found |= {(first, fault): cell for fault, cell in zip(faults, rest, strict=True)}
    return found


def test_every_cell_is_on_the_page():
    page = shown()
    marks = {(stage, fault): mark for stage, fault, mark in cells(LOCAL + SLURM)}
    assert page.keys() == marks.keys()
    for cell, mark in marks.items():
        if mark in REASONS:
            assert page[cell] == f"n/a <sup>{mark}</sup>"
        else:
            assert page[cell] in WORDS.values()


def test_a_record_becomes_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr("reliability.PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(PAGE.read_text())
    record = tmp_path / "record.jsonl"
    record.write_text(
        '{"stage": "train", "fault": "Ctrl-C", "outcome": "failed"}\n'
        '{"stage": "train", "fault": "Ctrl-C", "outcome": "passed"}\n'
        '{"stage": "train", "fault": "disk full", "outcome": "failed"}\n'
    )
    write(record)
    row = next(line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| train"))
    assert row.count("survived") == 1
    assert row.count("**failed**") == 1
    once = (tmp_path / "page.md").read_text()
    write(record)
    assert (tmp_path / "page.md").read_text() == once


@pytest.mark.parametrize("faults", [LOCAL, SLURM])
def test_ci_tries_some_of_them(faults):
    assert any(mark == "ci" for _, _, mark in cells(faults))
