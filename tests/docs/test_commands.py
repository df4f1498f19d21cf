"""Commands in README.md and docs/: every one is run by a test, or is marked with the reason why it is not.

A mark is a comment right before the block, which no reader sees:

    <!-- run by: tests/FILE.py::TEST, ... -->   the file of such a test names what the command does
    <!-- not run: REASON -->                    for the commands that no named test runs

Commands in a block without a mark are run here, in a folder with tiny checkpoints.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkpoints import save, weights
from expoflow.cli import whole_parser
from expoflow.cli.completion import commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = (
    "expoflow", "snakemake", "make", "pip", "python", "python3", "pytest", "vllm", "curl", "git", "hf", "sbatch",
)  # fmt: skip
LANGUAGES = ("", "sh", "bash", "console")
MARK = re.compile(r"<!-- (run by|not run): (.+?) -->")
PROMPT = re.compile(r"^\$ |^([A-Z_]+=\S+ )+")
# What stands for several things in one block.
MEANT = {
    "--sft DIR": "--sft checkpoints/sft",
    "--aligned DIR": "--aligned checkpoints/dpo",
    "inspect DIR": "inspect checkpoints/dpo",
}


@dataclass(frozen=True)
class Block:
    """Commands that stand together on a page, and the marks before them."""

    page: str
    line: int
    commands: tuple[str, ...]
    run_by: tuple[str, ...]
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def program(command: str) -> str:
    return PROMPT.sub("", command).partition(" ")[0].rpartition("/")[2]


def _block(page: str, line: int, lines: list[str], before: list[str]) -> Block | None:
    joined = re.sub(r"\\\n *", " ", "\n".join(lines)).splitlines()
    found = [each.strip() for each in joined if program(each.strip()) in PROGRAMS]
    marks = []
    while before and (not before[-1].strip() or MARK.fullmatch(before[-1].strip())):
        marks += MARK.findall(before.pop())
    run_by = [test.strip() for kind, text in marks if kind == "run by" for test in text.split(",")]
    reasons = [text for kind, text in marks if kind == "not run"]
    return Block(page, line, tuple(found), tuple(run_by), next(iter(reasons), None)) if found else None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that have commands: fenced, or indented by four spaces after an empty line."""
    found, lines, number = [], page.read_text(encoding="utf-8").splitlines(), 0
    while number < len(lines):
        fence = re.match(r" *(```+)(\w*)", lines[number])
        begin = number
        if fence:
            number += 1
            while number < len(lines) and not lines[number].strip().startswith(fence[1]):
                number += 1
            inside = lines[begin + 1 : number] if fence[2] in LANGUAGES else []
        elif re.match(r"    (?! *<!--)", lines[number]) and (number == 0 or not lines[number - 1].strip()):
            while number + 1 < len(lines) and lines[number + 1].startswith("    "):
                number += 1
            inside = lines[begin : number + 1]
        else:
            inside = []
        number += 1
        if block := _block(str(page.relative_to(ROOT)), begin + 1, inside, lines[:begin]):
            found.append(block)
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


def key(command: str) -> str:
    """The word by which a test that runs the command names it."""
    words = PROMPT.sub("", command).split()
    if program(command) == "make":
        return " ".join(words[:2])
    if program(command) == "expoflow":
        return words[1]
    if program(command).startswith("python") and words[1] != "-m":
        return Path(words[1]).stem
    if program(command) == "curl":
        return next(word for word in words if word.startswith("localhost")).rpartition("/")[2]
    return words[2] if words[1:2] == ["-m"] else program(command)


def named(block: Block) -> str:
    """The text of the files of the tests that run the block."""
    return "\n".join((ROOT / test.partition("::")[0]).read_text(encoding="utf-8") for test in block.run_by)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.run_by], ids=str)
def test_the_named_tests_exist_and_name_the_commands(block):
    for test in block.run_by:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), f"{file} does not exist"
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), (
            f"{test} does not exist"
        )
    if block.not_run is None:
        for command in block.commands:
            assert re.search(rf"\b{re.escape(key(command))}\b", named(block)), f"no test runs: {command}"


def code(command: str) -> list[str]:
    """The words of a command without its comment, redirections, pipes and what goes to snakemake."""
    words = shlex.split(command, comments=True)
    end = next((at for at, word in enumerate(words) if word in ("|", ">", "<", "&&", "--", ">>")), len(words))
    return [word for word in words[:end] if word != "..."]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_command_of_expoflow_parses(block):
    for command in block.commands:
        if program(command) == "expoflow" and "..." not in shlex.split(command, comments=True):
            whole_parser().parse_args(code(PROMPT.sub("", command))[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_text_names_is_a_command_with_these_options(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    known = commands(whole_parser())
    for span in re.findall(r"`(expoflow [^`]+)`", text):
        _, name, *words = span.split(" -- ")[0].split()
        assert name in known or name in ("COMMAND", "--version"), span
        options = (
            {option for action in known[name]._actions for option in action.option_strings}
            if name in known
            else ()
        )
        assert name not in known or {
            word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2
        } <= set(options), span


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A folder with what the commands name: two checkpoints."""
    folder = tmp_path_factory.mktemp("scratch")
    for seed, name in enumerate(("sft", "dpo")):
        save(folder / f"checkpoints/{name}", weights(seed=seed))
    (folder / "bin").mkdir()
    command = folder / "bin/expoflow"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m expoflow.cli "$@"\n')
    command.chmod(0o755)
    for each in (".zfunc", ".local/share/bash-completion/completions"):
        (folder / each).mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if not block.run_by and block.not_run is None], ids=str
)
def test_the_other_commands_run(block, scratch):
    environment = os.environ | {"PATH": f"{scratch / 'bin'}:{os.environ['PATH']}", "HOME": str(scratch)}
    for number, command in enumerate(block.commands):
        assert program(command) == "expoflow", f"{block} has no mark, and this test cannot run: {command}"
        for said, meant in (MEANT | {"--out DIR": f"--out made/{block.page}/{number}"}).items():
            command = command.replace(said, meant)
        done = subprocess.run(
            ["bash", "-c", PROMPT.sub("", command)],
            cwd=scratch, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
