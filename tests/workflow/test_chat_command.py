"""`expoflow chat` on a finished run: the answers are the run's own, and the run stays as it is."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from expoflow.cli import main
from expoflow.files.records import read_jsonl
from expoflow.results import Generation, Prompt
from tree import Tree

pytestmark = pytest.mark.workflow
NAMES = {"0": " (aligned)", "-1": " (sft)", "60": " (chosen)"}


def command(tree: Tree, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "expoflow.cli", "chat", str(tree.folder), *arguments]


def environment(tree: Tree) -> dict[str, str]:
    return os.environ | {"EXPOFLOW_STORE": str(tree.store)}


def chat(tree: Tree, lines: Sequence[str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(tree, *arguments),
        cwd="/",
        env=environment(tree),
        input="".join(f"{line}\n" for line in lines),
        text=True,
        capture_output=True,
        timeout=300,
    )


def state(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of all that lies in some folders, these included."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


def questions(tree: Tree) -> dict[str, str]:
    """The questions of the run's prompts, by their ids."""
    prompts = read_jsonl(tree.folder / "results/prompts/dev.jsonl", Prompt)
    return {prompt.prompt_id: prompt.messages[0].content for prompt in prompts}


def answers(tree: Tree, alpha: str) -> dict[str, Generation]:
    """What the run's jobs have generated at an alpha, by the prompts' ids."""
    rows = read_jsonl(tree.folder / f"results/pairs/tiny/alpha={alpha}/dev.generations.jsonl", Generation)
    return {row.prompt_id: row for row in rows if row.sample == 0}


def shown(alpha: str, row: Generation) -> str:
    """An answer as the terminal has it."""
    ended = {"stop": "stop", "length": "length: cut off"}[row.finish_reason]
    tokens = f"{row.response_tokens} token{'s' * (row.response_tokens != 1)}"
    return f"alpha {alpha}{NAMES.get(alpha, '')}: {tokens}, {ended}\n  {row.response}\n\n"


def test_the_answers_are_those_of_the_run_and_nothing_is_written(finished_once):
    before = state(finished_once.folder, finished_once.store)
    asked = questions(finished_once)
    lines = [line for question in asked.values() for line in (question, "/new")]
    done = chat(finished_once, lines)
    assert done.returncode == 0, done.stderr
    rows = {alpha: answers(finished_once, alpha) for alpha in ("0", "60")}
    expected = [
        f"> {question}\n" + "".join(shown(alpha, rows[alpha][prompt_id]) for alpha in rows) + "> /new\n"
        for prompt_id, question in asked.items()
    ]
    assert done.stdout == "".join(expected)
    assert len(asked) == 24
    assert all(line.startswith("expoflow: ") for line in done.stderr.splitlines()), done.stderr
    assert state(finished_once.folder, finished_once.store) == before


def test_every_alpha_goes_by_its_own_answers_and_a_later_one_is_asked_all_questions(finished_once):
    first, second = [*questions(finished_once).values()][:2]
    whole = chat(finished_once, [first, second], "--alphas=-1,1")
    assert whole.returncode == 0, whole.stderr
    *_, sft, aligned = whole.stdout.removesuffix("\n\n").split("\n\n")
    assert sft.startswith(f"> {second}\nalpha -1 (sft): ")
    alone = chat(finished_once, [second, "/new", first, second], "--alphas", "-1,1")
    assert f"> {second}\n{sft.partition(chr(10))[2]}\n\n{aligned}" in alone.stdout
    assert not alone.stdout.startswith(whole.stdout[-len(sft + aligned) - 4 :])  # the turn before counts
    later = chat(finished_once, [first, second, "/alpha 1", "/alpha -1,1.0"], "--alphas", "-1,0")
    assert later.returncode == 0, later.stderr
    *_, moved = later.stdout.partition("> /alpha 1\n")
    answered = f"{sft.partition(chr(10))[2]}\n\n{aligned}\n\n"
    assert moved == f"{answered}> /alpha -1,1.0\n{answered}"


def test_what_a_model_writes_is_shown_and_not_obeyed(finished):
    prompt_id, row = next(
        (key, row) for key, row in answers(finished, "0").items() if "Maybe" in row.response
    )
    for model in ("sft", "dpo"):
        path = finished.folder / f"results/models/{model}/tokenizer.json"
        text = path.read_text(encoding="utf-8")
        assert '"Maybe"' in text
        path.write_text(text.replace('"Maybe"', '"\x9b31m"'), encoding="utf-8")  # as many bytes
    done = chat(finished, [questions(finished)[prompt_id]])
    assert done.returncode == 0, done.stderr
    assert "\x9b" not in done.stdout + done.stderr
    written = row.model_copy(update={"response": row.response.replace("Maybe", "\\x9b31m")})
    assert shown("0", written) in done.stdout


class Terminal:
    """A chat at a terminal of its own: what is typed there, and what is to be seen."""

    def __init__(self, tree: Tree, **variables: str):
        self.ours, theirs = os.openpty()
        self.process = subprocess.Popen(
            command(tree),
            env=environment(tree) | {"TERM": "xterm"} | variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def wait_for(self, text: str) -> str:
        """What is seen until `text` comes, and it; what comes then is for the next call."""
        until = time.monotonic() + 300
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if select.select([self.ours], [], [], 1)[0]:
                self.seen += os.read(self.ours, 65536).decode()
        found, _, self.seen = self.seen.partition(text)
        return found + text

    def ended(self) -> tuple[int, str]:
        """The exit status, and what is still to be seen."""
        with suppress(OSError):  # its other end is closed
            while text := os.read(self.ours, 65536):
                self.seen += text.decode()
        os.close(self.ours)
        return self.process.wait(), self.seen


def test_at_a_terminal_it_says_which_alpha_answers_and_a_slip_ends_nothing(finished_once):
    before = state(finished_once.folder, finished_once.store)
    prompt_id, question = next(iter(questions(finished_once).items()))
    terminal = Terminal(finished_once)
    assert "tiny: loading alpha 0 with transformers" in terminal.wait_for("> ")
    for slip in ("/alpha 0", "/alpha x", "/what"):
        terminal.type(f"{slip}\n")
        assert "expoflow: " in terminal.wait_for("> ")
    terminal.type(f"{question}\n")
    said = terminal.wait_for("alpha 60 (chosen)") + terminal.wait_for("> ")
    assert "\ralpha 0 answers" in said
    assert "\ralpha 60 answers" in said
    for alpha in ("0", "60"):
        assert shown(alpha, answers(finished_once, alpha)[prompt_id]).replace("\n", "\r\n") in said
    terminal.type("\x03")
    status, said = terminal.ended()
    assert status == 130, said
    assert said.strip().splitlines()[-1] == "expoflow: interrupted; nothing is left behind"
    assert "Traceback" not in said
    assert state(finished_once.folder, finished_once.store) == before


@pytest.mark.parametrize(
    ("seen", "typed", "status"),
    [("loading alpha 0", "\x03", 130), ("> ", "\x04", 0), ("> ", "/quit\n", 0)],
    ids=["ctrl-c while it loads", "ctrl-d", "quit"],
)
def test_it_ends_without_a_traceback_and_leaves_nothing(finished_once, tmp_path, seen, typed, status):
    terminal = Terminal(finished_once, TMPDIR=str(tmp_path))
    terminal.wait_for(seen)
    terminal.type(typed)
    ended, said = terminal.ended()
    assert ended == status, said
    assert "Traceback" not in said
    assert not [*tmp_path.glob("expoflow-*")]


def test_a_line_that_is_none_ends_what_nobody_types(finished_once):
    done = chat(finished_once, ["/what"])
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("expoflow: '/what' is not a command; /alpha 0.5 changes")
    done = subprocess.run(
        command(finished_once),
        env=environment(finished_once) | {"PYTHONIOENCODING": "utf-8:surrogateescape"},
        input=b"caf\xe9?\n",
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.endswith(b"expoflow: standard input is not UTF-8; save the questions as UTF-8\n")


def test_what_is_wrong_is_told_with_the_remedy_before_anything_is_loaded(finished, capsys):
    results = finished.folder / "results"

    def said(*arguments: str) -> str:
        with suppress(SystemExit):  # of argparse
            assert main(["chat", str(finished.folder), *arguments]) == 2
        return capsys.readouterr().err

    assert "'0' is not two different alphas, such as 0,0.3" in said("--alphas", "0")
    assert "'0,0.0' is not two different alphas" in said("--alphas", "0,0.0")
    assert "'x' is not a finite number" in said("--alphas", "0,x")
    assert "the config has no pair 'big'; there are: tiny" in said("--pair", "big")
    best = json.loads((results / "pairs/tiny/best.json").read_text())
    (results / "pairs/tiny/best.json").write_text(json.dumps(best | {"alpha": "0"}))
    assert "best.json: alpha 0 is chosen, the aligned model itself; name two alphas: --alphas 0,1" in said()
    (results / "pairs/tiny/best.json").unlink()
    assert "best.json: is not there, no alpha is chosen yet; name two alphas: --alphas 0,1" in said()
    finished.edit(lambda config: config["models"]["dpo"]["train"].update(learning_rate=1.0e-4))
    assert "dpo.json: is not of the model that the config says; run: expoflow run" in said("--alphas", "0,1")
    (results / "models/dpo.json").unlink()
    assert said("--alphas", "0,1").splitlines()[-1] == (
        f"expoflow: results/models/dpo.json: is not there, the model has not been made yet; run: expoflow run {finished.folder}"
    )
    finished.edit(lambda config: config["pairs"].update(other=config["pairs"]["tiny"]))
    assert "the config has the pairs tiny, other; choose one with --pair" in said("--alphas", "0,1")


def test_a_pair_that_preflight_refuses_is_refused_in_the_same_words(finished):
    """Of checkpoints in folders, which have no manifest of a training."""
    for name in ("sft", "dpo"):
        shutil.copytree(finished.folder / "results/models" / name, finished.folder / name)
    config = yaml.safe_load((finished.folder / "config.yaml").read_text())
    for name in ("sft", "dpo"):
        config["models"][name] = {"path": name}
        path = finished.folder / f"results/models/{name}.json"
        made = json.loads(path.read_text())
        path.write_text(json.dumps(made | {"source": {"path": name}, "folder": name}))
    (finished.folder / "config.yaml").write_text(yaml.safe_dump(config))
    question = next(iter(questions(finished).values()))
    fine = chat(finished, [question])
    assert fine.returncode == 0, fine.stderr
    assert fine.stdout == chat(finished, [question], "--alphas", "0,60").stdout
    changed = json.loads((finished.folder / "dpo/config.json").read_text())
    other = json.dumps(changed | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]})
    (finished.folder / "dpo/config.json").write_text(other)
    path = finished.folder / "results/models/dpo.json"
    made = json.loads(path.read_text())
    made["files"]["config.json"]["size"] = len(other)
    path.write_text(json.dumps(made))
    pair = [f"--{role}={finished.folder / name}" for role, name in (("sft", "sft"), ("aligned", "dpo"))]
    told = subprocess.run(
        [sys.executable, "-m", "expoflow.cli", "preflight", *pair], capture_output=True, text=True
    )
    words = [line[21:] for line in told.stdout.splitlines() if line.startswith("error ")]
    refused = chat(finished, [question])
    assert refused.returncode == 2, refused.stderr
    assert words
    assert all(line in refused.stderr for line in words)
