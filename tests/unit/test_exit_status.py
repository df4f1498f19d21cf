"""What docs/commands.md says of exit statuses, and the completion of shells."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from expoflow.cli import COMMANDS, main

PAGE = (Path(__file__).parents[2] / "docs/commands.md").read_text()
STATED = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|$", PAGE, re.MULTILINE))


def test_the_page_names_every_command_and_status():
    assert set(STATED) == {"0", "1", "2", "130", "141", "143"}
    named = set(re.findall(r"^\| `expoflow (\w+)", PAGE, re.MULTILINE))
    assert named == set(COMMANDS)


def test_done_failed_and_to_be_corrected(make_pair, tmp_path, capsys):
    sft, aligned = make_pair(aligned={"vocab": 336})
    pair = ["--sft", str(sft), "--aligned", str(aligned)]
    assert main(["init", str(tmp_path / "mine")]) == 0
    assert main(["preflight", *pair]) == 1  # a check says no
    assert main(["extrapolate", *pair, "--alpha", "0.3", "--out", str(tmp_path / "out")]) == 2
    assert main(["status", str(tmp_path)]) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["status", "--no-such-option"])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_and_ended(tmp_path, number, status):
    pipe = tmp_path / "alpaca_eval.generations.jsonl"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "expoflow.cli", "benchmark", "alpaca_eval", "--annotations", str(pipe)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, open(pipe, "w"):
        process.send_signal(number)  # it has opened the pipe, and waits for what comes
        said = process.stderr.read()
    assert process.returncode == status, said
    assert "Traceback" not in said


COMPLETE = """source {script}
asked() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_expoflow; echo "${{COMPREPLY[@]}}"; }}
asked expoflow doc
asked expoflow run --max
asked expoflow run --engine tr
asked expoflow status --out som
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_options_choices_and_folders(tmp_path, capsys):
    pytest.importorskip("shtab", reason="`make run` installs it")
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "some.yaml").touch()
    asked = ["bash", "-c", COMPLETE.format(script=script)]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["doctor", "--max-tokens", "transformers", "somewhere", ""]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["run", "--alpha", "1"], "expoflow run: error: unknown: --alpha (did you mean --alphas?)"),
        (["plan", "--tokens=5"], "expoflow plan: error: unknown: --tokens=5 (did you mean --max-tokens?)"),
        (["status", "a", "b"], "expoflow status: error: unknown: b"),
    ],
)
def test_what_a_command_does_not_know_is_refused(capsys, given, said):
    """Also a beginning of an option: it would mean another one as soon as there is a second that begins so."""
    with pytest.raises(SystemExit, match="2"):
        main(given)
    assert capsys.readouterr().err.splitlines()[-1] == said
