"""The events of a run, written and read, and what is shown of them."""

import json
import logging
import os
import re
import shutil
import socket
import time
from pathlib import Path

import pytest
from expoflow.cli import main
from expoflow.project import resume, show
from expoflow.project.display import Board
from expoflow.project.events import Follower, Job, Recorder
from expoflow.system import progress
from snakemake_interface_logger_plugins.common import LogEvent

BEGAN = 1_000_000.0


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message(event, **fields):
    return logging.makeLogRecord({"event": event, "msg": "", **fields})


def place(rule, alpha):
    return f"results/logs/{rule}/alpha={alpha}.log"


def sweep(alphas=("0", "0.3", "0.5")):
    """The jobs of a sweep: one training, and for each alpha responses and rewards."""
    found = [Job(0, "train", {"model": "dpo"}, "results/logs/train/dpo.log")]
    for rule in ("generate", "score"):
        for alpha in alphas:
            wildcards = {"pair": "zephyr", "alpha": alpha, "prompts": "dev"}
            found.append(Job(len(found), rule, wildcards, place(rule, alpha)))
    return [*found, Job(len(found), "report", {}, "results/logs/report.log")]


def test_what_is_recorded_is_read(folder):
    path = folder / "results/logs/run.jsonl"
    follower = Follower(path)
    assert follower.read() is None
    recorder = Recorder(path, sweep(), cluster=False)
    run = follower.read()
    assert (run.pid, run.cluster, len(run.having("waiting"))) == (os.getpid(), False, 8)
    recorder.hear(message(LogEvent.JOB_INFO, jobid=1))
    recorder.hear(message(LogEvent.JOB_INFO, jobid=99))  # the rule all
    recorder.hear(message(None))
    assert [job.id for job in follower.read().having("started")] == [1]
    recorder.hear(message(LogEvent.JOB_FINISHED, job_id=1))
    recorder.hear(message(LogEvent.JOB_INFO, jobid=2))
    recorder.hear(message(LogEvent.JOB_ERROR, jobid=2))
    assert follower.read() is run
    assert [(job.id, job.state) for job in run.jobs.values() if job.began] == [(1, "finished"), (2, "failed")]
    assert run.jobs[1].ended >= run.jobs[1].began > 0
    recorder.end()
    recorder.end()
    assert follower.read().ending == "failed"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["run", "job", "job", "job", "job", "end"]
    assert lines[1] | {"time": 0} == {
        "event": "job",
        "state": "started",
        "id": 1,
        "rule": "generate",
        "wildcards": {"pair": "zephyr", "alpha": "0", "prompts": "dev"},
        "log": "results/logs/generate/alpha=0.log",
        "time": 0,
    }


def test_the_next_run_begins_anew(folder):
    path = folder / "run.jsonl"
    Recorder(path, sweep(), cluster=False).end()
    follower = Follower(path)
    assert follower.read().ending == "interrupted"
    next_ = Recorder(path, sweep()[:1], cluster=True)
    assert (len(follower.read().jobs), follower.read().ending) == (1, "")
    next_.hear(message(LogEvent.JOB_FINISHED, job_id=0))
    next_.end()
    assert follower.read().ending == "finished"


def test_half_a_line_waits_for_its_other_half_and_a_broken_one_is_left_out(folder):
    path = folder / "run.jsonl"
    Recorder(path, sweep(), cluster=False)
    follower = Follower(path)
    with open(path, "a") as file:
        file.write('{"event": "job", "state": "sta\n{"event": "job", "id": 3, "state": "started", ')
        file.flush()
        assert not follower.read().having("started")
        file.write('"time": 1}\n')
    assert [job.id for job in follower.read().having("started")] == [3]


def test_a_folder_that_cannot_be_written_to_costs_the_events_and_not_the_run(folder):
    (folder / "results").write_text("")
    recorder = Recorder(folder / "results/logs/run.jsonl", sweep(), cluster=False)
    recorder.hear(message(LogEvent.JOB_INFO, jobid=1))
    recorder.end()


# What is shown.


def write(folder: Path, cluster: bool = False, done: int = 1, jobs: list[Job] | None = None) -> None:
    """A run that has trained, and generates: alpha 0 (`done`) within 100 s, alpha 0.3 since 40 s."""
    path = folder / "results/logs/run.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    planned = [vars(job) for job in jobs or sweep()]
    keys = ("id", "rule", "wildcards", "log", "output")
    lines = [{"event": "run", "time": BEGAN, "host": "h", "pid": 1, "cluster": cluster}]
    lines[0]["jobs"] = [{key: job[key] for key in keys} for job in planned]

    def job(number, state, time):
        lines.append({"event": "job", "id": number, "state": state, "time": BEGAN + time})

    job(0, "started", 0)
    job(0, "finished", 60)
    for number in range(1, done + 1):
        job(number, "started", 60 + 100 * (number - 1))
        job(number, "finished", 60 + 100 * number)
    job(done + 1, "started", 160)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def say(log: Path, **fields):
    log.parent.mkdir(parents=True, exist_ok=True)
    progress.place(log).write_text(json.dumps(fields))


def at(folder: Path, seconds: float) -> Board:
    board = Board(folder)
    board.read(BEGAN + seconds)
    return board


TOKENS = {
    "done": 1000,
    "total": 4000,
    "unit": "tokens",
    "last": "",
    "began": BEGAN + 180,
    "since": BEGAN + 180,
}
TOKENS |= {"before": 0}


def test_a_line_for_each_stage(folder):
    write(folder)
    say(folder / place("generate", "0.3"), updated=BEGAN + 200, **TOKENS)
    assert at(folder, 200).lines(140) == [
        "train           ━━━━━━━━━━━━━━━━━     1/1",
        "zephyr generate ━━━━━━━──────────     1/3  alpha 0.3: 1,000 of 4,000 tokens, 50 tokens/s, 60 s left",
        "zephyr score    ─────────────────     0/3",
        "report          ─────────────────     0/1",
        "2 of 8 jobs, 3 min",  # of most that is to come nothing is known yet
    ]
    narrow = at(folder, 200).lines(80)
    assert narrow[1] == "zephyr generate ━━━━──────     1/3  alpha 0.3: 50 tokens/s, 60 s left"
    assert max(map(len, narrow)) <= 80
    assert (
        at(folder, 200)
        .sentence(detailed=True)
        .endswith("; zephyr generate alpha 0.3: 1,000 of 4,000 tokens, 50 tokens/s, 60 s left")
    )
    assert max(map(len, at(folder, 200).lines(30))) <= 30


@pytest.mark.parametrize("cluster", [False, True])
def test_a_job_without_a_log_says_how_long_it_has_been_at_work(folder, cluster):
    write(folder, jobs=[Job(number, "x", {}) for number in range(3)], cluster=cluster)
    board = Board(Path())
    board.read(BEGAN + 200)
    assert board.lines(60)[0].endswith("2/3  40 s")


def test_time_left_grows_while_nothing_is_told(folder):
    write(folder, jobs=sweep()[:4])
    say(folder / place("generate", "0.3"), updated=BEGAN + 200, **TOKENS | {"done": 200})

    def said(second):
        return at(folder, second).lines(140)[1].partition("tokens, ")[2]

    assert said(200) == "10 tokens/s, 6 min left"  # measured in 20 s
    assert said(215) == "10 tokens/s, 6 min left"
    assert said(260) == "3.33 tokens/s, 19 min left"
    assert said(5000) == "0.0417 tokens/s, 25.3 h left"
    say(folder / place("generate", "0.3"), updated=BEGAN + 200, **TOKENS | {"done": 4000})
    assert at(folder, 5000).lines(140)[1].endswith("4,000 of 4,000 tokens")  # and writes its files


def test_nobody_knows_when_a_job_ends_that_takes_longer_than_the_others(folder):
    write(folder, jobs=sweep()[:4])
    assert at(folder, 300).left() == (pytest.approx(100), 1)
    assert at(folder, 300).sentence() == "2 of 4 jobs, 5 min, over 2 min left"
    write(folder, jobs=sweep()[:4], done=2)
    assert at(folder, 1000).sentence() == "3 of 4 jobs, 17 min"


@pytest.mark.parametrize(
    "event",
    [
        {"event": "end", "state": "finished", "time": "now"},
        {"event": "end"},
        {"event": "job", "id": 3, "state": "started", "time": None},
        {"event": "job", "id": 3, "state": "asleep", "time": 1},
        {"event": "job", "id": [], "state": "started", "time": 1},
        {"event": "run", "time": 1, "host": "h", "pid": 1, "cluster": False, "jobs": [{"id": 3, "rule": 5}]},
        {"event": "run", "time": 1, "host": "h", "pid": "x", "cluster": False, "jobs": []},
        {"event": "run", "time": 1, "host": "h", "pid": 1, "cluster": False, "jobs": 7},
        None,
    ],
)
def test_what_is_no_event_is_left_out(folder, event):
    write(folder)
    wanted = at(folder, 200).lines(140)
    with open(folder / "results/logs/run.jsonl", "a") as file:
        file.write(json.dumps(event) + "\n")
    assert at(folder, 200).lines(140) == wanted


def test_the_last_result_stands_in_the_line(folder):
    write(folder, done=4)
    log = folder / place("score", "0")
    log.parent.mkdir(parents=True)
    log.write_text("loading\nzephyr: alpha 0: reward 1.520\n")
    log.with_name("alpha=0.3.log").write_text("other words\n")
    lines = at(folder, 480).lines(100)
    assert lines[2].endswith("1/3  alpha 0.3: 5 min; alpha 0: reward 1.520")


def test_time_left_is_what_was_measured_shared_by_what_runs_at_once(folder):
    write(folder, jobs=sweep()[:4])  # no scores, no report
    board = at(folder, 200)  # alpha 0.3 has 60 s of 100 left, alpha 0.5 takes 100
    assert board.left() == (pytest.approx(160), 0)
    assert board.sentence() == "2 of 4 jobs, 3 min, about 3 min left"
    say(folder / place("generate", "0.3"), updated=BEGAN + 200, **TOKENS | {"done": 2000})  # 20 s left
    assert at(folder, 200).left() == (pytest.approx(120), 0)
    write(folder)
    assert at(folder, 200).left() == (
        pytest.approx(125),
        3,
    )  # a report takes seconds; of scores nothing is known
    write(folder, jobs=sweep()[:5])
    assert at(folder, 200).sentence().endswith("over 2 min left")


def test_a_clock_that_was_set_back_shows_no_time(folder):
    write(folder, jobs=sweep()[:4])
    assert at(folder, 100).lines(140)[1].endswith("1/3  alpha 0.3: 0 s")
    assert at(folder, -100).sentence().startswith("2 of 4 jobs, 0 s")


def test_progress_of_a_former_try_does_not_count(folder):
    write(folder)
    say(folder / place("generate", "0.3"), updated=BEGAN + 100, **TOKENS)
    assert "alpha 0.3: 40 s" in at(folder, 200).lines(140)[1]


def test_of_responses_the_speed_is_in_tokens(folder):
    write(folder)
    responses = {
        "done": 12,
        "total": 40,
        "unit": "responses",
        "before": 2,
        "tokens": 900,
        "tokens_before": 100,
    }
    say(folder / place("generate", "0.3"), updated=BEGAN + 200, **TOKENS | responses)
    line = at(folder, 200).lines(140)[1]
    assert line.endswith("alpha 0.3: 12 of 40 responses, 40 tokens/s, 56 s left")


def test_bytes_are_gigabytes(folder):
    write(folder, jobs=[Job(0, "prompts", {}), Job(1, "x", {}), Job(2, "download", {"model": "m"}, "d.log")])
    told = {
        "done": 5e9,
        "total": 14.5e9,
        "unit": "bytes",
        "last": "",
        "began": BEGAN + 160,
        "since": BEGAN + 160,
    }
    told |= {"before": 0}
    say(folder / "d.log", updated=BEGAN + 170, **told)
    assert at(folder, 170).lines(100)[2].endswith("m: 5 of 14.5 GB, 0.5 GB/s, 19 s left")


def test_a_job_that_waits_for_slurm_is_said_to_wait(folder):
    write(folder, cluster=True)
    assert at(folder, 200).lines(100)[1].endswith("1/3  1 wait for SLURM")
    assert not at(folder, 200).at_work()
    log = folder / place("generate", "0.3")
    log.parent.mkdir(parents=True)
    log.touch()
    os.utime(log, (BEGAN, BEGAN + 100))  # of a former try
    assert not at(folder, 200).at_work()
    os.utime(log, (BEGAN, BEGAN + 190))
    assert [job.id for job in at(folder, 200).at_work()] == [2]


def test_a_job_is_done_in_a_slurm_job_that_is_not(folder):
    jobs = sweep()
    jobs[2].output = "responses"
    write(folder, cluster=True, jobs=jobs)
    (folder / "responses").touch()
    os.utime(folder / "responses", (BEGAN, BEGAN + 100))  # of a former run
    assert " 1/3" in at(folder, 200).lines(100)[1]
    os.utime(folder / "responses", (BEGAN, BEGAN + 190))
    assert " 2/3" in at(folder, 200).lines(100)[1]


def test_what_does_not_fit_on_the_screen_is_counted(folder):
    stages = [Job(0, "train", {"model": "m"})]
    stages += [Job(number, "select", {"pair": f"p{number:02}"}, f"{number}.log") for number in range(1, 31)]
    write(folder, done=10, jobs=stages)
    lines = at(folder, 2000).lines(80, height=12)
    assert len(lines) <= 12 - 1
    assert lines[0].startswith("p11 select")  # at work; those that are done go first
    assert "22 more lines" in lines[-2]


def test_stages_stand_in_their_order_pair_by_pair(folder):
    rules = ["benchmark_reward", "generate", "score", "export", "benchmark_reward"]
    jobs = [Job(0, "train", {"model": "m"}), Job(1, "rewardbench", {}), Job(2, "tables", {})]
    for rule in rules:
        for pair in ("q", "p"):
            jobs.append(Job(len(jobs), rule, {"pair": pair}))
    write(folder, jobs=[*jobs, Job(len(jobs), "report", {})])
    paired = ["generate", "score", "export", "benchmark"]
    assert [row.label for row in at(folder, 200).rows] == [
        "train", "rewardbench", *(f"{pair} {stage}" for pair in ("q", "p") for stage in paired), "report"
    ]  # fmt: skip


def test_names_cannot_command_the_terminal(folder):
    jobs = sweep()
    jobs[2].wildcards["pair"] = "\x1b[2J"
    write(folder, jobs=jobs)
    assert "\x1b" not in "\n".join(at(folder, 200).lines(140)) + at(folder, 200).sentence(detailed=True)


def test_a_run_that_ended_shows_how(folder):
    write(folder)
    with open(folder / "results/logs/run.jsonl", "a") as file:
        file.write(json.dumps({"event": "end", "state": "interrupted", "time": BEGAN + 200}) + "\n")
    assert at(folder, 5000).sentence() == "2 of 8 jobs, interrupted after 3 min"
    assert not at(folder, 5000).at_work()


def test_status_names_the_jobs_at_work(folder, capsys):
    main(["init", str(folder)])
    write(folder)
    note(folder)
    now = time.time()
    say(folder / place("generate", "0.3"), **TOKENS | {"began": now - 20, "since": now - 20, "updated": now})
    capsys.readouterr()
    assert main(["status", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("so far ") and " 2 of 8 jobs, " in line for line in lines)
    now = next(line for line in lines if line.startswith("now "))
    assert (
        now.partition("  ")[2]
        .strip()
        .startswith("zephyr generate alpha 0.3: 1,000 of 4,000 tokens, 50 tokens/s, ")
    )
    with open(folder / "results/logs/run.jsonl", "a") as file:
        file.write(json.dumps({"event": "end", "state": "finished", "time": BEGAN + 200}) + "\n")
    assert main(["status", str(folder), "--watch"]) == 0
    said = capsys.readouterr().out
    assert "now " not in said
    assert re.search("^last run +2 of 8 jobs, finished after 3 min$", said, re.MULTILINE)


def note(folder: Path, **head) -> None:
    """What the head of a run has said of itself: it is another machine's unless `head` says else."""
    (folder / ".snakemake").mkdir(exist_ok=True)
    known = {"folder": str(folder), "host": "h", "pid": 1, "start": 1, "cluster": False, "command": []}
    (folder / resume.NOTE).write_text(json.dumps(known | {"cwd": "/"} | head))


def test_a_run_whose_head_was_killed_is_not_at_work(folder):
    write(folder)
    board = Board(folder)
    note(folder)
    assert show.at_work(board)  # nothing more is known of another machine's
    note(folder, host=socket.gethostname(), pid=1 << 21)
    assert not show.at_work(board)
    assert show.at_work(board, look=False)


def test_status_says_whether_a_run_was_killed_here_or_may_be_elsewhere(folder, capsys):
    main(["init", str(folder)])
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.output.lock").touch()
    here = {"host": socket.gethostname(), "pid": 1 << 21}
    for head, said in (
        (here, "killed; continue"),
        ({}, "killed, or running on another machine (h); continue"),
    ):
        note(folder, **head)
        capsys.readouterr()
        assert main(["status", str(folder)]) == 0
        assert capsys.readouterr().out.splitlines()[0].partition("  ")[2].strip().startswith(said)


def test_in_a_copy_of_a_folder_nothing_is_at_work(folder):
    write(folder)
    note(folder)
    shutil.copytree(folder, folder / "copy")
    assert show.at_work(Board(folder))
    assert not show.at_work(Board(folder / "copy"))


def test_a_look_at_a_large_run_costs_little(folder):
    """A hundred jobs at work of a thousand: it takes milliseconds, once a second."""
    jobs = [
        Job(n, "generate", {"pair": f"p{n % 50}", "alpha": str(n)}, place("generate", str(n)))
        for n in range(1000)
    ]
    write(folder, jobs=jobs)
    with open(folder / "results/logs/run.jsonl", "a") as file:
        for job in jobs[100:200]:
            file.write(
                json.dumps({"event": "job", "id": job.id, "state": "started", "time": BEGAN + 160}) + "\n"
            )
            say(folder / job.log, updated=BEGAN + 200, **TOKENS)
    board = at(folder, 200)
    board.lines(140, 50)
    began = time.process_time()
    for second in range(10):
        board.read(BEGAN + 201 + second)
        board.lines(140, 50)
    assert (time.process_time() - began) / 10 < 0.1
