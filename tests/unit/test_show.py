"""A real Snakemake, of a workflow of seconds, as `expoflow run` shows it: at a terminal, in a pipe, interrupted."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
from expoflow.project.terminal import INTERRUPTED, STOPPED

# Of each of two alphas responses, with a progress file beside the job's log, and a reward.
SNAKEFILE = """
import sys
from expoflow.project import terminal

WORDS = terminal.listen()


onstart:
    WORDS.begin(workflow.dag, cluster=not workflow.local_exec)


onsuccess:
    print("p: best alpha 2", file=sys.stderr)


onerror:
    if not WORDS.interrupted:
        print(WORDS.last(), file=sys.stderr)


rule all:
    input:
        expand("results/{pair}.{alpha}.score", pair="p", alpha=[1, 2]),


rule generate:
    output:
        "results/{pair}.{alpha}.gen",
    log:
        "results/logs/generate/{pair}/alpha={alpha}.log",
    shell:
        '''echo "{{\\\\"done\\\\": 10, \\\\"total\\\\": 40, \\\\"unit\\\\": \\\\"tokens\\\\", \\\\"last\\\\": \\\\"\\\\", \\\\"before\\\\": 0, \\\\"began\\\\": 1, \\\\"since\\\\": $(($(date +%s) - 5)),'''
        ''' \\\\"updated\\\\": $(date +%s)}}" > results/logs/generate/{wildcards.pair}/.alpha={wildcards.alpha}.log.progress;'''
        ''' echo "error: no room; make some" > {log}; trap "$INTERRUPTED exit 130" INT; echo "$$" > pid; sleep $WAIT; test "$FAIL" != {wildcards.alpha} && touch {output}'''


rule scored:
    output:
        "results/{name}.scored",
    log:
        "results/logs/scored/{name}.log",
    script:
        "scored.py"


rule score:
    input:
        "results/{pair}.{alpha}.gen",
    output:
        "results/{pair}.{alpha}.score",
    log:
        "results/logs/score/{pair}/alpha={alpha}.log",
    shell:
        "echo '{wildcards.pair}: alpha {wildcards.alpha}: reward 1.5' | tee {log} >&2; touch {output}"
"""
RUN = """
import sys
from pathlib import Path
from expoflow.project import show

command = [sys.executable, "-m", "snakemake", "--cores", "1", "--show-failed-logs"]
sys.exit(show.run([*command, *sys.argv[1:]], Path()))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    return tmp_path


def start(folder, *arguments, wait=1.5, fail="", output=subprocess.PIPE):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        cwd=folder,
        env=os.environ
        | {"WAIT": str(wait), "FAIL": fail, "TERM": "xterm", "INTERRUPTED": "echo Traceback >&2;"},
        stdout=output,
        stderr=output if output != subprocess.PIPE else subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def at_a_terminal(folder: Path, columns: int = 80) -> str:
    """What a run that ends well writes to a terminal of 24 lines."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    run = start(folder, output=theirs)
    os.close(theirs)
    said = b""
    with suppress(OSError):  # its other end is closed
        while text := os.read(ours, 65536):
            said += text
    os.close(ours)
    assert run.wait() == 0
    return said.decode()


def ended(run: subprocess.Popen) -> tuple[int, list[str]]:
    said = run.communicate(timeout=60)[0]
    return run.returncode, said.splitlines()


def wait_for(run: subprocess.Popen, path: Path) -> str:
    """The text of a file that a run will write."""
    while not (path.exists() and path.read_text()):
        assert run.poll() is None
        time.sleep(0.05)
    return path.read_text()


def events(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results/logs/run.jsonl").read_text().splitlines()]


def test_a_pipe_gets_what_is_said_and_the_log_the_rest(folder):
    status, (*said, last) = ended(start(folder, wait=0))
    assert (status, sorted(said)) == (0, ["p: alpha 1: reward 1.5", "p: alpha 2: reward 1.5"])
    assert last == "p: best alpha 2"
    log = (folder / "results/logs/snakemake.log").read_text()
    assert "Building DAG of jobs..." in log
    assert "Finished jobid: 1" in log
    first, *jobs, end = events(folder)
    assert [job["rule"] for job in first["jobs"]] == ["generate", "generate", "score", "score"]
    assert [job["state"] for job in jobs] == ["started", "finished"] * 4
    assert end["state"] == "finished"
    status, said = ended(start(folder))
    assert status == 0
    assert said[-1].startswith("Nothing to be done")


@pytest.mark.parametrize("columns", [80, 140])
def test_a_terminal_gets_a_picture_as_wide_as_it_is(folder, columns):
    said = at_a_terminal(folder, columns)
    lines = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "\n", said).splitlines()
    assert max(map(len, lines)) <= columns
    words = "10 of 40 tokens, 2 tokens/s, " if columns == 140 else ""
    assert any(re.match(rf"p generate [━─]+ +0/2  alpha \d: {words}", line) for line in lines), said
    assert any("of 4 jobs, " in line and "left" in line for line in lines)
    assert any(re.match(r"p score +━+─+ +1/2  alpha \d: reward 1.5", line) for line in lines)
    assert {"p: alpha 1: reward 1.5", "p: alpha 2: reward 1.5"} <= {*lines}
    assert "p: best alpha 2" in lines
    assert not any(
        "of 4 jobs" in line for line in lines[lines.index("p: best alpha 2") :]
    )  # it is on an empty screen
    assert "Building DAG" not in said
    assert said.count("\x1b[?25h") == 1  # the cursor is there again


def test_two_lines_after_ctrl_c_and_a_second_run_meanwhile(folder):
    first = start(folder, wait=60)
    job = int(wait_for(first, folder / "pid"))
    status, said = ended(start(folder))
    assert status == 1
    (line,) = said
    assert re.fullmatch(
        r"expoflow: a run is at work in this folder \(process \d+\); wait until it ends, or stop it", line
    )
    first.send_signal(signal.SIGINT)
    assert ended(first) == (130, [*INTERRUPTED])
    assert not Path(f"/proc/{job}").exists()
    assert events(folder)[-1]["state"] == "interrupted"
    assert ended(start(folder, wait=0))[0] == 0  # it goes on


def test_sigterm_lets_jobs_finish_and_says_how_to_go_on(folder):
    run = start(folder, wait=3)
    wait_for(run, folder / "pid")
    run.send_signal(signal.SIGTERM)
    assert ended(run) == (1, [STOPPED])
    done = [event["state"] for event in events(folder)[1:]]
    assert done == ["started", "finished", "interrupted"]


def test_ctrl_c_before_the_first_job(folder):
    text = (folder / "Snakefile").read_text()
    (folder / "Snakefile").write_text(f'{text}\nimport time\nPath("pid").write_text("1")\ntime.sleep(60)\n')
    run = start(folder)
    wait_for(run, folder / "pid")
    run.send_signal(signal.SIGINT)
    status, said = ended(run)
    assert (status, said) == (130, [*INTERRUPTED])


def test_snakemake_itself_has_the_same_two_lines_last(folder):
    run = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=folder,
        env=os.environ | {"WAIT": "60", "FAIL": "", "INTERRUPTED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    wait_for(run, folder / "pid")
    os.killpg(run.pid, signal.SIGINT)
    status, said = ended(run)
    assert (status, said[-2:]) == (1, [*INTERRUPTED])
    assert "Job stats:" in said


def test_a_job_that_fails_is_told_once_with_its_reason(folder):
    status, said = ended(start(folder, wait=0, fail="1"))
    assert status == 1
    told = [line for line in said if line == "results/logs/generate/p/alpha=1.log: error: no room; make some"]
    assert len(told) == 1
    assert not [line for line in said if "Traceback" in line or "WorkflowError" in line]
    assert "Error in rule generate" in (folder / "results/logs/snakemake.log").read_text()
    assert events(folder)[-1]["state"] == "failed"


def test_of_a_script_that_fails_nothing_else_is_told(folder):
    (folder / "scored.py").write_text(
        "with open(snakemake.log[0], 'w') as log:\n    log.write('error: a: broken; mend it')\nraise SystemExit(1)\n"
    )
    status, said = ended(start(folder, "results/a.scored"))
    assert (status, said) == (1, ["results/logs/scored/a.log: error: a: broken; mend it"])
    assert "CalledProcessError" in (folder / "results/logs/snakemake.log").read_text()


def test_what_is_asked_of_snakemake_itself_is_answered(folder):
    status, said = ended(start(folder, "--no-such-option"))
    assert status == 2
    assert said[-1].endswith("unrecognized arguments: --no-such-option")
    status, said = ended(start(folder, "--list-rules"))
    assert status == 0
    assert {"all", "generate", "score"} <= {*said}
    assert not (folder / "results").exists()


def test_a_reader_that_goes_does_not_end_the_run(folder):
    run = start(folder, wait=1)
    wait_for(run, folder / "pid")
    run.stdout.close()
    assert run.wait(60) == 0
    assert events(folder)[-1]["state"] == "finished"


def test_a_terminal_that_goes_does_not_end_the_run(folder):
    ours, theirs = os.openpty()
    run = start(folder, wait=2, output=theirs)
    os.close(theirs)
    wait_for(run, folder / "pid")
    os.close(ours)
    assert run.wait(60) == 0
    assert events(folder)[-1]["state"] == "finished"


def test_a_former_run_is_not_shown_as_this_one(folder):
    assert ended(start(folder, wait=0))[0] == 0
    text = (folder / "Snakefile").read_text()
    (folder / "Snakefile").write_text(f"{text}\nimport time\ntime.sleep(4)\n")
    said = at_a_terminal(folder)
    assert "no job has begun yet" in said
    assert "Nothing to be done" in said
    assert "of 4 jobs" not in said


def test_snakemake_does_not_outlive_what_shows_it(folder):
    run = start(folder, wait=5)
    wait_for(run, folder / "pid")
    head = events(folder)[0]["pid"]
    run.kill()
    run.wait()
    while Path(f"/proc/{head}").exists() and Path(f"/proc/{head}/stat").read_text().split()[2] != "Z":
        time.sleep(0.05)
    run.stdout.close()
