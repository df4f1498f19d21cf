"""Engine hosts as real processes, with a `sleep` for the head: sharing, dying, leaving."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from expoflow.errors import CheckpointError, ConfigError, ExpoflowError
from expoflow.hosts import client, head, slot, task
from expoflow.hosts.client import run
from expoflow.hosts.head import Head
from expoflow.hosts.slot import Slot, entered
from expoflow.hosts.task import Held, Task
from expoflow.system import gpus, processes
from expoflow.system.processes import ended
from waits import wait

KINDS = {name: f"host_tasks:{name}" for name in ("count", "crash", "fail", "fork", "talk", "threads")} | {
    "other": "host_tasks:count"
}

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="hosts need Linux")


class Run:
    """A run: its head, and what jobs of it need."""

    def __init__(self, monkeypatch, slots=(None,), idle=600.0):
        self.process = subprocess.Popen(["sleep", "3600"])
        self.parent = Path(tempfile.mkdtemp(prefix="expoflow-test-"))
        start = processes.started(self.process.pid)
        self.head = Head(
            pid=self.process.pid, start=start, folder=self.parent / "run", slots=slots, idle=idle
        )
        monkeypatch.setenv("EXPOFLOW_HEAD", self.head.model_dump_json())
        self.pids = set()

    def rows(self, kind="count", key="", **arguments):
        """All rows of a task."""
        return list(self.each(kind, key, **arguments))

    def each(self, kind="count", key="", **arguments):
        """A task's rows one by one."""
        arguments = {"key": key, **arguments}
        for rows in run(lambda: Task(kind=kind, key=key, arguments=arguments)):
            self.pids |= {row["pid"] for row in rows} - {os.getpid()}
            yield from rows

    def end(self) -> None:
        """The head is killed: whatever was there is gone."""
        self.process.kill()
        self.process.wait()
        wait(lambda: all(map(ended, self.pids)) and not self.head.folder.exists())
        self.parent.rmdir()


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Start a run in a folder of its own; every test ends with its head killed and nothing left."""
    runs = []

    def make(**settings):
        runs.append(Run(monkeypatch, **settings))
        return runs[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(task, "KINDS", KINDS)
    monkeypatch.delenv("EXPOFLOW_HOST", raising=False)
    yield make
    for each in runs:
        each.end()


def test_the_rows_are_the_same_with_and_without_a_host(start, monkeypatch):
    run = start()
    hosted = run.rows(n=5)
    monkeypatch.setenv("EXPOFLOW_HOST", "off")
    alone = run.rows(n=5)
    monkeypatch.delenv("EXPOFLOW_HEAD")
    assert run.rows(n=5)[0]["pid"] == os.getpid()
    assert {row["pid"] for row in alone} == {os.getpid()} != {row["pid"] for row in hosted}
    assert [row["third"] for row in alone] == [row["third"] for row in hosted]


def test_tasks_share_a_host_and_what_it_loaded(start):
    run = start()
    first, second = run.rows(n=1), run.rows(n=2)
    assert first[0] == second[0]
    assert run.rows(n=1, key="another")[0]["loaded"] == 2
    assert Path("closed").read_text() == "1\n"
    assert len(run.pids) == 1


def test_a_killed_host_is_started_again_once_and_the_rest_is_done(start, capsys):
    run = start()
    done = []

    def make():
        return Task(kind="count", arguments={"start": len(done), "n": 6, "wait": [3 + len(done), "go"]})

    for rows in client.run(make):
        done += rows
        if len(done) == 3:
            run.pids.add(rows[0]["pid"])
            os.kill(rows[0]["pid"], signal.SIGKILL)
            Path("go").touch()
    run.pids.add(done[-1]["pid"])
    assert [row["index"] for row in done] == [*range(6)]
    assert len(run.pids) == 2
    assert (
        f"host of slot 0 (process {done[0]['pid']}) has died; starting another one" in capsys.readouterr().out
    )


def test_a_host_that_dies_twice_is_an_error_after_the_end_of_its_log(start, capsys):
    run = start()
    with pytest.raises(
        ExpoflowError,
        match=r"has died, and so did the one before; see results/logs/hosts/slot-0.log, or set .* without hosts$",
    ):
        run.rows("crash")
    first, second = capsys.readouterr().out.split("Its log ends:")[1:]
    assert "Segmentation fault" in first
    assert "Segmentation fault" in second
    assert len(run.pids) == 2
    assert run.rows(n=1)[0]["pid"] not in run.pids - {run.rows(n=1)[0]["pid"]}


def test_a_host_that_died_while_idle_is_replaced_with_what_it_had_started(start):
    run = start()
    (row,) = run.rows("talk")
    os.kill(row["pid"], signal.SIGKILL)
    wait(lambda: ended(row["pid"]))
    assert not ended(row["child"])
    assert run.rows(n=1)[0]["pid"] != row["pid"]
    wait(lambda: ended(row["child"]))


def test_a_dead_host_whose_child_keeps_the_connection_is_noticed(start, capsys):
    run = start()
    rows = run.each("fork")
    first = next(rows)
    os.kill(first["pid"], signal.SIGKILL)
    second = next(rows)
    assert second["pid"] != first["pid"]
    wait(lambda: ended(first["child"]))
    # A line of the child's would get among the host's.
    assert "said in the fork" in Path("results/logs/hosts/slot-0.log").read_text()
    assert "said in the fork" not in capsys.readouterr().out.partition("error: ")[0]
    os.kill(second["pid"], signal.SIGKILL)
    with pytest.raises(ExpoflowError, match="has died, and so did the one before"):
        next(rows)
    wait(lambda: ended(second["child"]))
    assert run.rows(n=1)[0]["pid"] not in (first["pid"], second["pid"])


def test_the_end_of_the_head_ends_hosts_and_all_that_they_started(start):
    run = start(slots=(None, None))
    busy = run.each(n=9, wait=[1, "never"])
    next(busy)
    (row,) = run.rows("talk")
    run.process.kill()
    run.process.wait()
    wait(lambda: ended(row["child"]) and all(map(ended, run.pids)) and not run.head.folder.exists())
    assert len(run.pids) == 2
    with pytest.raises(ExpoflowError, match=r"snakemake .* has ended"):
        next(busy)
    with pytest.raises(ExpoflowError, match=r"snakemake .* has ended"):
        run.rows(n=1)
    wait(lambda: not run.head.folder.exists())


def test_an_idle_host_leaves_and_the_last_one_takes_the_folder_along(start):
    run = start(idle=0.5)
    (row,) = run.rows("talk")
    wait(lambda: ended(row["pid"]) and ended(row["child"]) and not run.head.folder.exists())
    assert run.head.alive()
    assert run.rows(n=1)[0]["pid"] != row["pid"]


def test_a_host_does_not_leave_while_a_job_has_its_slot(start):
    run = start(idle=0.2)
    run.rows(n=1)
    with entered(run.head.folder) as folder:
        slot = Slot(run.head, 0, folder)
    time.sleep(1)
    assert not any(map(ended, run.pids))
    os.close(slot.lock)
    wait(lambda: not run.head.folder.exists())


def test_after_a_killed_job_the_same_host_serves_the_next(start):
    run = start()
    program = (
        "import sys; sys.path[:] = eval(sys.argv[1]); from expoflow.hosts import client, task; task.KINDS = eval(sys.argv[2])\n"
        "arguments = {'n': 9, 'wait': [1, 'never']}\n"
        "for rows in client.run(lambda: task.Task(kind='count', arguments=arguments)): print(rows[0]['pid'], flush=True)"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", program, repr(sys.path), repr(KINDS)], stdout=subprocess.PIPE
    )
    pid = int(job.stdout.readline())
    job.kill()
    job.communicate()
    assert run.rows(n=1)[0] == {"index": 0, "third": 0, "pid": pid, "loaded": 1}
    assert Path("finished").read_text() == "xx"


def test_a_task_that_is_given_up_is_closed(start):
    run = start()
    rows = run.each(n=9, wait=[1, "never"])
    next(rows)
    rows.close()
    wait(Path("finished").exists)
    run.rows(n=1)
    assert len(run.pids) == 1


def test_two_slots_have_two_hosts_at_the_same_time_each_with_its_device(start):
    run = start(slots=("3", "GPU-5"))
    busy = run.each(n=3, wait=[1, "go"])
    next(busy)
    (row,) = run.rows("talk")
    Path("go").touch()
    assert [other["index"] for other in busy] == [1, 2]
    assert len(run.pids) == 2
    assert row["device"] == "GPU-5"


def test_a_task_goes_where_its_key_is_loaded(start):
    run = start(slots=(None, None))
    busy = run.each(n=3, key="a", wait=[1, "go"])
    first = next(busy)
    second = run.rows(n=1, key="b")[0]
    Path("go").touch()
    list(busy)
    for key, row in (("b", second), ("a", first), ("b", second)):
        assert run.rows(n=1, key=key)[0]["pid"] == row["pid"]
    assert not Path("closed").exists()


def test_a_core_holds_one_thing_of_each_kind(tmp_path, monkeypatch):
    from host_tasks import Thing

    monkeypatch.chdir(tmp_path)
    keys = []
    held = Held(keys.append)
    assert held.get("a", "1", Thing) is held.get("a", "1", Thing)
    held.get("b", "2", Thing)
    assert keys[-1] == {"a": "1", "b": "2"}
    held.get("a", "3", Thing)
    assert keys[-1] == {"a": "3", "b": "2"}
    held.clear()
    assert keys[-1] == {}


def test_a_gpu_gets_another_process_for_another_model(start):
    """vLLM wants nearly all of a GPU's memory, and only the end of a process frees all that it had."""
    run = start(slots=("0",))
    seen = []
    for kind, key in (("count", "a"), ("count", "a"), ("count", "b"), ("other", "b")):
        seen.append(run.rows(kind, key, n=1)[0]["pid"])
        assert [pid for pid in {*seen} if not ended(pid)] == [seen[-1]]
    assert (seen[0] == seen[1], len({*seen})) == (True, 3)
    with pytest.raises(CheckpointError):
        run.rows("fail", how="checkpoint")
    wait(lambda: all(map(ended, run.pids)))
    assert len(run.pids) == 4


def test_likelihoods_come_from_the_engine_that_generates():
    task = Task(kind="likelihood", key="a", arguments={})
    assert task.is_ready({"generate": "a", "score": "b"})
    assert not task.is_ready({"generate": "b", "likelihood": "a"})


def test_errors_travel_with_their_class(start):
    run = start()
    with pytest.raises(CheckpointError, match="model 'x' is broken; mend it"):
        run.rows("fail", how="checkpoint")
    with pytest.raises(ConfigError) as error:
        run.rows("fail", how="config")
    assert error.value.problems == ["one", "two"]
    assert len(run.pids) == 1
    with pytest.raises(RuntimeError, match=r"host_tasks.py[\s\S]*ZeroDivisionError: in the work"):
        run.rows("fail", how="otherwise")
    wait(lambda: all(map(ended, run.pids)))  # who knows what state it was in
    assert run.rows(n=1)[0]["loaded"] == 1


def test_what_a_task_prints_is_printed_by_the_job(start, capsys, monkeypatch):
    run = start()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run.rows("talk")[0]["threads"] == "1"
    assert "said in the task" in (text := capsys.readouterr().out)
    assert "UserWarning: warned in the task" in text
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert run.rows("talk")[0]["threads"] == "2"
    assert "said in the task" not in Path("results/logs/hosts/slot-0.log").read_text()


def test_a_large_model_has_the_cores_that_nobody_uses(start, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = start(slots=(None,) * 5)
    for name, size in (("small", 10**6), ("large", 100 * 10**6)):
        (tmp_path / name).mkdir()
        with open(tmp_path / name / "model.safetensors", "wb") as file:
            file.truncate(size)
    assert [row["threads"] for row in run.each("threads", folder=str(tmp_path / "small"), n=1)] == ["1"]
    rows = run.each("threads", folder=str(tmp_path / "large"), n=2)
    assert next(rows)["threads"] == "5"
    with entered(run.head.folder) as folder:
        others = [Slot(run.head, number, folder) for number in (3, 4)]
    assert next(rows)["threads"] == "1"
    assert list(rows) == []
    for other in others[1:]:
        other.leave()
    time.sleep(1.1)
    assert [row["threads"] for row in run.each("threads", folder=str(tmp_path / "large"), n=1)] == ["2"]
    others[0].leave()


def test_a_kind_that_is_not_in_the_table(start, monkeypatch):
    run = start()
    run.rows(n=1)
    monkeypatch.setattr(task, "KINDS", {**KINDS, "os": "os:system"})
    with pytest.raises(
        RuntimeError, match="no kind of task is called 'os'; there are: count, crash, fail, fork"
    ):
        run.rows("os")  # the host knows the table that it was started with
    assert run.rows(n=1)  # another host takes its place
    monkeypatch.delenv("EXPOFLOW_HEAD")
    with pytest.raises(ValueError, match="no kind of task is called 'none'"):
        run.rows("none")


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_is_open_to_others_is_refused(start, mode):
    run = start()
    run.head.folder.mkdir()
    run.head.folder.chmod(mode)
    with pytest.raises(ExpoflowError, match=rf"run is accessible to others .* mode {mode:o}\); delete it"):
        run.rows(n=1)
    run.head.folder.rmdir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(start):
    run = start()
    run.head.folder.mkdir(0o700)
    os.chown(run.head.folder, 1234, -1)
    with pytest.raises(ExpoflowError, match="owner 1234"):
        run.rows(n=1)
    run.head.folder.rmdir()


def test_a_link_in_place_of_the_folder_is_refused(start, tmp_path):
    run = start()
    run.head.folder.symlink_to(tmp_path)
    with pytest.raises(ExpoflowError, match="is not a folder"):
        run.rows(n=1)
    run.head.folder.unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_does_not_get_to_the_socket(start):
    """The folder is what keeps them out: whatever the socket's own mode."""
    run = start()
    run.rows(n=1)
    (run.head.folder / "slot-0.sock").chmod(0o777)
    run.parent.chmod(0o755)
    program = (
        "import os, socket, sys; os.setuid(1234); s = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1])\nexcept PermissionError as error: print(error.strerror)"
    )
    command = [sys.executable, "-c", program, str(run.head.folder / "slot-0.sock")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout == "Permission denied\n", answer.stderr


def test_a_host_that_never_answers_is_replaced(start, monkeypatch):
    run = start()
    run.rows(n=1)
    (pid,) = run.pids
    monkeypatch.setattr(slot, "ANSWER", 3)
    os.kill(pid, signal.SIGSTOP)
    wait(lambda: ") T " in Path(f"/proc/{pid}/stat").read_text())
    assert run.rows(n=1)[0]["pid"] != pid


def test_a_long_path_of_the_runtime_folder_is_no_problem(start, monkeypatch):
    run = start()
    run.head = run.head.model_copy(update={"folder": run.parent / ("x" * 200)})
    monkeypatch.setenv("EXPOFLOW_HEAD", run.head.model_dump_json())
    assert run.rows(n=1)[0]["pid"] != os.getpid()


def announced(code: str, folder: Path) -> dict:
    program = f"import json, os\nfrom expoflow.hosts import head\n{code}\nprint(os.environ.get('EXPOFLOW_HEAD', 'null'))"
    environment = os.environ | {"TMPDIR": str(folder), "EXPOFLOW_HEAD": "of an outer run"}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_a_head_announces_its_slots_and_sweeps_after_dead_ones(tmp_path):
    dead = tmp_path / f"expoflow-{os.getuid()}-{os.getpid()}-1"
    alive = tmp_path / f"expoflow-{os.getuid()}-{os.getpid()}-{processes.started(os.getpid())}"
    dead.mkdir()
    alive.mkdir()
    head = announced(
        "head.announce(3); os.mkdir(json.loads(os.environ['EXPOFLOW_HEAD'])['folder'])", tmp_path
    )
    if not gpus.gpus():
        assert head["slots"] == [None] * 3
    assert Path(head["folder"]).parent == tmp_path
    assert [*tmp_path.iterdir()] == [alive]


def test_a_model_that_asks_for_more_gpus_than_there_are_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    with pytest.raises(ExpoflowError, match="asks for 8 GPUs, but there are 5 here"):
        head.announce(1, asked={"m": 8})
    assert gpus.allotted() == 5
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus.allotted() == 1


def test_jobs_of_a_cluster_do_without_hosts(tmp_path):
    assert announced("head.announce(None)", tmp_path) is None


@pytest.mark.parametrize(
    ("visible", "devices"),
    [("2, GPU-1", ["2", "GPU-1"]), ("", []), ("-1", []), ("1,-1,0", ["1"]), ("NoDevFiles", [])],
)
def test_gpus_are_those_that_are_visible(monkeypatch, visible, devices):
    monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.gpus() == devices


def test_gpus_are_counted_by_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpus._number.cache_clear()
    assert gpus.gpus() == []
    gpus._number.cache_clear()
    shell = shutil.which("sh", path="/bin:/usr/bin")
    text = "GPU 0: A (UUID: GPU-a)\n  MIG 1g Device 0: (UUID: MIG-b)\nGPU 1: A (UUID: GPU-c)"
    (tmp_path / "nvidia-smi").write_text(f"#!{shell}\necho '{text}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpus.gpus() == ["0", "1"]
    gpus._number.cache_clear()


def test_a_job_imports_no_torch():
    program = "import sys; from expoflow.hosts import client, host; print('torch' in sys.modules, 'transformers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False False\n"
