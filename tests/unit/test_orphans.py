"""A head's note of its run, and the processes that it leaves behind."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from expoflow.cli import main
from expoflow.errors import DataError, ExpoflowError
from expoflow.files.records import write_json
from expoflow.project import resume

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def dead(tmp_path, monkeypatch) -> resume.Run:
    """A run in the working directory whose head has ended."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv(resume.MARK, "")  # what begin() sets goes with the test
    head = subprocess.Popen(SLEEP)
    run = resume.Run(
        folder=str(folder),
        host=socket.gethostname(),
        pid=head.pid,
        start=resume.started(head.pid),
        cluster=False,
        command=["--cores", "1"],
        cwd=str(folder),
    )
    assert run.alive()
    write_json(folder / resume.NOTE, run)
    head.kill()
    head.wait()
    return run


@pytest.fixture
def orphan(dead):
    """A job of that head which goes on."""
    process = subprocess.Popen(SLEEP, env=os.environ | {resume.MARK: dead.folder})
    while f"{resume.MARK}={dead.folder}" not in Path(f"/proc/{process.pid}/environ").read_text():
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


def test_a_head_leaves_a_note_and_marks_what_it_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(resume.MARK, "")
    resume.begin(["--cores", "2"], "/somewhere", cluster=False)
    run = resume.last_run(Path())
    assert (run.command, run.cwd, run.pid) == (["--cores", "2"], "/somewhere", os.getpid())
    assert run.alive()
    assert os.environ[resume.MARK] == str(tmp_path)
    assert resume.find(run.folder, False) is None


def test_a_process_that_took_over_the_heads_pid_is_not_the_head(dead):
    assert not dead.alive()
    other = dead.model_copy(update={"pid": os.getpid()})
    assert not other.alive()


def test_what_is_just_ending_is_waited_for(dead):
    resume.begin([], "/", cluster=False)
    ending = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(1)"], env=os.environ | {resume.MARK: dead.folder}
    )
    while resume.find(dead.folder, False) is None and ending.poll() is None:
        time.sleep(0.01)
    resume.begin([], "/", cluster=False)
    assert ending.wait() == 0


def test_no_new_head_beside_the_jobs_of_a_dead_one(dead, orphan):
    assert resume.find(dead.folder, False).processes == [orphan.pid]
    message = f"processes {orphan.pid} of a run that was killed .* expoflow resume {dead.folder}"
    with pytest.raises(ExpoflowError, match=message):
        resume.begin([], "/", cluster=False)
    orphan.send_signal(signal.SIGKILL)
    orphan.wait()
    resume.begin([], "/", cluster=False)


def test_status_says_what_a_dead_head_left(dead, orphan, capsys):
    main(["init", dead.folder])
    assert main(["status", dead.folder]) == 0
    assert f"killed, but processes {orphan.pid} are still at work" in capsys.readouterr().out


def test_orphans_are_found_where_the_note_of_their_run_is_lost(dead, orphan, capsys, monkeypatch):
    resume.NOTE.unlink()
    main(["init", dead.folder])
    assert main(["status", dead.folder]) == 0
    assert f"killed, but processes {orphan.pid} are still at work; the command" in capsys.readouterr().out
    monkeypatch.setattr(resume, "ENDING", 0)
    with pytest.raises(ExpoflowError, match=rf"processes {orphan.pid} .* end them \(kill\)"):
        resume.begin([], "/", cluster=False)


def test_the_folder_in_which_a_run_was_started_is_gone(dead):
    write_json(resume.NOTE, dead.model_copy(update={"cwd": f"{dead.folder}/gone"}))
    with pytest.raises(ExpoflowError, match="project/gone: the folder in which the run was started is gone"):
        resume.resume(Path(dead.folder), dead=False, say=print)


def test_what_a_lock_means(dead, tmp_path):
    folder = Path(dead.folder)
    resumed = f"expoflow resume {folder}"
    assert resume.lock_words(Path()) == (
        f"the last run in this folder (process {dead.pid}) was killed; continue with: {resumed}"
    )
    elsewhere = dead.model_copy(update={"host": "node7"})
    write_json(resume.NOTE, elsewhere)
    assert resume.lock_words(folder).endswith(f"if it has ended, continue on node7 with: {resumed}")
    write_json(resume.NOTE, elsewhere.model_copy(update={"cluster": True}))
    assert resume.lock_words(folder).endswith(
        f"is at work on node7 (process {dead.pid}), or was killed there; if it has ended, continue with: {resumed} --dead"
    )
    resume.NOTE.unlink()
    assert "no process of this machine is at work in it; if its run was killed, run snakemake --unlock" in (
        resume.lock_words(folder)
    )


def test_a_lock_of_a_run_that_is_alive(dead):
    head = subprocess.Popen(SLEEP)
    alive = {"pid": head.pid, "start": resume.started(head.pid)}
    write_json(resume.NOTE, dead.model_copy(update=alive))
    assert resume.lock_words(Path()) == (
        f"a run is at work in this folder (process {head.pid}); wait until it ends, or stop it"
    )
    head.kill()
    head.wait()


def test_a_lock_of_a_run_that_has_left_no_note_yet(dead):
    """Its head is told from the jobs of the dead one, which may name snakemake too."""
    named = [*SLEEP, "snakemake"]
    job = subprocess.Popen(named, env=os.environ | {resume.MARK: dead.folder})
    while f"{resume.MARK}={dead.folder}" not in Path(f"/proc/{job.pid}/environ").read_text():
        time.sleep(0.01)
    assert "was killed; continue with" in resume.lock_words(Path())
    head = subprocess.Popen(named)
    while b"snakemake" not in Path(f"/proc/{head.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    assert f"a run is at work in this folder (process {head.pid})" in resume.lock_words(Path())
    for process in (job, head):
        process.kill()
        process.wait()


@pytest.mark.parametrize("pid", [0, -1, 1 << 32])
def test_a_note_of_a_process_that_cannot_be(dead, pid):
    write_json(resume.NOTE, dead.model_dump() | {"pid": pid})
    with pytest.raises(
        DataError, match=r"expoflow-run.json: pid: .* delete the file and run snakemake again"
    ):
        resume.last_run(Path())


def test_a_head_without_slurms_commands_does_not_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "sbatch").touch(0o755)
    with pytest.raises(ExpoflowError, match=r"^squeue, scancel: no such command here; start the run on"):
        resume.begin([], "/", cluster=True)
    assert not resume.NOTE.exists()


def test_a_copy_of_a_folder_has_had_no_run(dead, tmp_path):
    shutil.copytree(dead.folder, tmp_path / "copy")
    assert resume.last_run(tmp_path / "copy") is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"host": "elsewhere"}, "was run on elsewhere; resume it there"),
        ({"host": "elsewhere", "cluster": True}, "on elsewhere, process .* add --dead"),
    ],
)
def test_what_may_be_alive_on_another_machine_is_left_alone(dead, change, problem):
    write_json(resume.NOTE, dead.model_copy(update=change))
    locks = Path(".snakemake/locks")
    locks.mkdir()
    (locks / "0.output.lock").touch()
    with pytest.raises(ExpoflowError, match=problem):
        resume.resume(Path(dead.folder), dead=False, say=print)


def test_two_cannot_resume_at_a_time(dead):
    with open(resume.NOTE.with_suffix(".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ExpoflowError, match="is being resumed"):
            resume.resume(Path(dead.folder), dead=False, say=print)
