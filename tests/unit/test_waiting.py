"""Slots of a local run: how many GPUs a task gets, who gets which and when, with real hosts on GPUs that there are not."""

import _thread
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from expoflow.config import Config
from expoflow.config.sources import ModelConfig
from expoflow.engines.memory import spread_over
from expoflow.engines.model import Model
from expoflow.errors import CheckpointError, ExpoflowError
from expoflow.hosts import client, count, task, waiting
from expoflow.hosts.head import Head
from expoflow.hosts.reserved import reserved
from expoflow.hosts.shares import run_shares
from expoflow.hosts.slot import NOTHING, Slot, entered, note, read_note
from expoflow.hosts.task import Task
from expoflow.hosts.waiting import Gift, Holder, Wish, assign
from expoflow.hosts.width import width
from expoflow.project.begin import asked_gpus
from expoflow.system import gpus, processes
from expoflow.system.installed import accelerate_config
from expoflow.system.processes import ended
from waits import wait

KINDS = {
    "generate": "waiting_tasks:generate",
    "score": "waiting_tasks:score",
    "likelihood": "waiting_tasks:generate",
}
GB = 10**9
A, B, REWARD = Wish(kind="generate", key="a"), Wish(kind="generate", key="b"), Wish(kind="score", key="rm")
WIDE = Wish(kind="generate", key="70b", slots=4)

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="hosts need Linux")


def gifts(slots, free, holders, wishes, **options):
    return {place: gift.slots for place, gift in assign(slots, free, holders, wishes, **options).items()}


def test_what_is_held_serves_first():
    held = [Holder((0,), {"generate": "a"})]
    assert assign(1, {0}, held, [B, REWARD, A]) == {2: Gift((0,))}
    assert assign(1, {0}, held, [B, REWARD]) == {0: Gift((0,), patient=True)}


def test_scores_wait_for_generations_unless_the_reward_model_is_there():
    assert gifts(1, {0}, [], [REWARD, A]) == {1: (0,)}
    assert gifts(1, {0}, [Holder((0,), {"score": "rm"})], [A, REWARD]) == {1: (0,)}
    assert gifts(2, {0, 1}, [], [REWARD, A]) == {1: (0,), 0: (1,)}


def test_nothing_is_loaded_twice_while_something_else_waits():
    busy = [Holder((0,), {"generate": "a"})]
    assert assign(2, {1}, busy, [A, B]) == {1: Gift((1,))}
    assert assign(2, {1}, busy, [A, REWARD]) == {1: Gift((1,))}
    assert assign(2, {1}, busy, [A]) == {0: Gift((1,), patient=True)}
    assert assign(3, {0, 1, 2}, [], [A, A, B]) == {0: Gift((0,)), 2: Gift((1,)), 1: Gift((2,), patient=True)}


def test_gpus_go_to_those_who_need_them():
    small = [Wish(kind="generate", key=str(each)) for each in range(4)]
    assert gifts(8, set(range(8)), [], [WIDE, *small]) == {
        0: (0, 1, 2, 3),
        1: (4,),
        2: (5,),
        3: (6,),
        4: (7,),
    }
    assert gifts(8, set(range(8)), [], [small[0], WIDE, *small[1:]]) == {
        0: (0,),
        1: (4, 5, 6, 7),
        2: (1,),
        3: (2,),
        4: (3,),
    }
    assert gifts(3, {0, 1, 2}, [], [WIDE, A]) == {1: (0,)}


def test_who_needs_several_gpus_keeps_those_that_are_free():
    busy = [Holder((0,), {"generate": "x"})]
    assert gifts(4, {1, 2, 3}, busy, [WIDE, A]) == {}
    assert gifts(8, {1, 2, 3, 4}, busy, [WIDE, A]) == {1: (4,)}
    # but what is loaded on them serves until then
    assert gifts(4, {1, 2, 3}, [*busy, Holder((1,), {"generate": "a"})], [WIDE, A]) == {1: (1,)}


def test_a_host_of_several_gpus_is_found_again_and_is_one_holder():
    wide = [Holder((0, 1, 2, 3), {"generate": "70b"})]
    assert assign(8, set(range(8)), wide, [A, WIDE]) == {1: Gift((0, 1, 2, 3)), 0: Gift((4,))}
    assert assign(4, set(range(4)), wide, [A]) == {0: Gift((0,), patient=True)}


def test_a_host_on_a_core_holds_one_thing_of_each_kind():
    hosts = [Holder((0,), {"generate": "a"})]
    assert assign(2, {0, 1}, hosts, [REWARD], gpus=False) == {0: Gift((0,))}
    assert assign(2, {0, 1}, hosts, [B], gpus=False) == {0: Gift((1,))}
    assert assign(1, {0}, hosts, [B], gpus=False) == {0: Gift((0,))}


def test_a_further_share_ends_nothing_and_keeps_no_gpu():
    further = A.model_copy(update={"further": True})
    busy, other = Holder((0,), {"generate": "a"}), Holder((1,), {"generate": "b"})
    assert assign(2, {1}, [busy, other], [A]) == {0: Gift((1,), patient=True)}
    assert assign(2, {1}, [busy, other], [further]) == {}
    assert assign(2, {1}, [busy, other], [further, REWARD]) == {1: Gift((1,), patient=True)}
    assert assign(2, {1}, [busy], [further]) == {0: Gift((1,), patient=True)}
    assert assign(3, {1, 2}, [busy, other], [further, B]) == {1: Gift((1,)), 0: Gift((2,), patient=True)}
    assert assign(2, {0, 1}, [busy, other], [further]) == {0: Gift((0,))}


class Run:
    """A run with as many GPUs as it says, and its jobs."""

    def __init__(self, monkeypatch, gpus: int, memory: int = 24 * GB):
        self.process = subprocess.Popen(["sleep", "3600"])
        self.parent = Path(tempfile.mkdtemp(prefix="expoflow-test-"))
        self.head = Head(
            pid=self.process.pid,
            start=processes.started(self.process.pid),
            folder=self.parent / "run",
            slots=tuple(map(str, range(gpus))),
            memory=memory,
            idle=600,
        )
        monkeypatch.setenv("EXPOFLOW_HEAD", self.head.model_dump_json())
        self.pids: set[int] = set()
        self.jobs: list[threading.Thread] = []

    def rows(self, kind: str, key: str, **arguments) -> list[dict]:
        made = Task(kind=kind, key=key, arguments={"key": key, **arguments})
        rows = [row for rows in client.run(lambda: made) for row in rows]
        self.pids |= {row["pid"] for row in rows}
        return rows

    def shared(self, key: str, items: str, **arguments) -> list[dict]:
        """What is done of the items in at most as many shares."""
        done = []

        def make(share) -> Task:
            left = [item for item in share or items if item not in {row.get("item") for row in done}]
            return Task(kind="generate", key=key, arguments={"key": key, "items": left, **arguments})

        def take(rows) -> None:
            self.pids |= {row["pid"] for row in rows}
            done.extend(rows)

        run_shares(make, items, len(items), take)
        return [row for row in done if "item" in row]

    def job(self, *works) -> None:
        """A job that does one piece of work after the other, beside all others."""

        def do() -> None:
            for kind, key in works:
                self.rows(kind, key)

        self.jobs.append(threading.Thread(target=do))
        self.jobs[-1].start()

    def wishes(self) -> int:
        return len([*self.head.folder.glob("wish-*")])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        wait(lambda: all(map(ended, self.pids)) and not self.head.folder.exists())
        self.parent.rmdir()


@pytest.fixture
def start(monkeypatch, tmp_path):
    runs = []

    def make(gpus, **settings):
        runs.append(Run(monkeypatch, gpus, **settings))
        return runs[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(task, "KINDS", KINDS)
    monkeypatch.setattr(count, "KINDS", {})  # the arguments are others
    monkeypatch.setattr(waiting, "PATIENCE", 1.5)
    monkeypatch.delenv("EXPOFLOW_HOST", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield make
    for each in runs:
        for job in each.jobs:
            job.join()
        each.end()


def loads() -> Counter:
    return Counter(line.partition(" on ")[0] for line in Path("loads").read_text().splitlines())


def test_one_gpu_loads_each_model_once_whoever_comes_first(start):
    """Two architectures, seven alphas each, and the scores of all: sixteen loads when slots went to whoever came."""
    run = start(1)
    keys = ["a", "b"] * 7
    random.Random(1).shuffle(keys)
    for key in keys:
        run.job(("generate", key), ("score", "rm"))
        time.sleep(0.05)
    for job in run.jobs:
        job.join()
    assert loads() == {"generate a": 1, "generate b": 1, "score rm": 1}
    assert run.wishes() == 0


def test_jobs_that_come_one_after_the_other_are_waited_for(start):
    """Four at a time, as with `--cores 4`: the next job that wants the same comes a moment after the last has ended."""
    run = start(1)
    works = [("generate", key) for key in ["a", "b"] * 5] + [("score", "rm")] * 4
    lock = threading.Lock()

    def one_after_the_other() -> None:
        while True:
            with lock:
                if not works:
                    return
                kind, key = works.pop(0)
            time.sleep(0.4)  # what a job needs to begin
            run.rows(kind, key)

    run.jobs = [threading.Thread(target=one_after_the_other) for _ in range(4)]
    for job in run.jobs:
        job.start()
    for job in run.jobs:
        job.join()
    assert sum(loads().values()) <= 4  # once, all four wait for the same while another is still to come


def later(condition, what) -> None:
    """Do something in another thread once the condition holds; at last in any case, so that a test that fails ends."""

    def do() -> None:
        try:
            wait(condition)
        finally:
            what()

    threading.Thread(target=do).start()


def test_the_work_of_one_job_is_spread_over_the_gpus_that_nobody_wants(start, capsys):
    run = start(4)
    later(lambda: Path("loads").exists() and sum(loads().values()) == 4, Path("go").touch)
    rows = run.shared("a", "abcdefgh", until="go")
    assert sorted(row["item"] for row in rows) == [*"abcdefgh"]
    assert sorted(Counter(row["device"] for row in rows).values()) == [2, 2, 2, 2]
    assert loads() == {"generate a": 4}
    assert {line for line in capsys.readouterr().out.splitlines()} == {
        f"did {item} here" for item in "abcdefgh"
    }
    assert run.wishes() == 0


@pytest.mark.parametrize(("gpus", "pairs"), [(8, "aaaaaa"), (5, "abab")])
def test_no_gpu_loads_twice_when_the_work_of_several_alphas_is_spread(start, gpus, pairs):
    run = start(gpus)
    found = []
    run.jobs = [
        threading.Thread(target=lambda key=key: found.append(run.shared(key, "abcdefgh"))) for key in pairs
    ]
    for job in run.jobs:
        job.start()
    for job in run.jobs:
        job.join()
    assert [sorted(row["item"] for row in rows) for rows in found] == [[*"abcdefgh"]] * len(pairs)
    devices = Counter(line.partition(" on ")[2] for line in Path("loads").read_text().splitlines())
    assert set(devices.values()) == {1}


def test_jobs_that_want_all_gpus_keep_their_work_together(start):
    """Three come while both GPUs are in use. Only what comes last can find two that are free."""
    run = start(2)
    for key in "xy":
        run.jobs.append(threading.Thread(target=lambda key=key: run.rows("generate", key, until="go")))
        run.jobs[-1].start()
    wait(lambda: Path("loads").exists() and sum(loads().values()) == 2)
    made = {"a": [], "b": [], "c": []}
    for key in made:

        def make(share, key=key) -> Task:
            made[key].append(share)  # the first time to see how wide it is
            return Task(kind="generate", key=key, arguments={"key": key, "items": list(share or "1234")})

        run.jobs.append(threading.Thread(target=run_shares, args=(make, "1234", 4, lambda rows: None)))
        run.jobs[-1].start()
    wait(lambda: run.wishes() == 3)
    Path("go").touch()
    for job in run.jobs:
        job.join()
    assert [*made.values()].count([None, None]) >= 2


def test_a_share_that_fails_is_the_jobs_error_and_ends_the_others(start):
    run = start(2)
    later(lambda: len(run.pids) == 2, Path("go").touch)
    with pytest.raises(CheckpointError, match="item d is bad"):
        run.shared("a", "abcd", bad="d", hold="b", until="go")
    assert run.wishes() == 0
    (row,) = run.rows("generate", "a")
    assert row["pid"] in run.pids
    assert not ended(row["pid"])


def test_a_host_that_dies_in_a_share_is_replaced_and_nothing_is_done_twice(start, capsys):
    run = start(2)
    Path("die").write_text("d")
    later(lambda: Path("loads").exists() and sum(loads().values()) == 2, Path("go").touch)
    rows = run.shared("a", "abcdef", until="go")
    assert sorted(row["item"] for row in rows) == [*"abcdef"]
    assert "has died; starting another one" in capsys.readouterr().out


def test_an_interrupt_gives_up_all_shares_and_leaves_their_hosts(start):
    run = start(2)
    later(lambda: Path("loads").exists() and len(run.pids) == 2, _thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt):
        run.shared("a", "abcd", until="never")
    assert run.wishes() == 0
    assert run.rows("generate", "a")[0]["pid"] in run.pids
    assert not any(map(ended, run.pids))


def test_on_one_gpu_and_for_a_wide_model_the_work_stays_whole(start):
    run = start(1)
    assert len({row["pid"] for row in run.shared("a", "abcd")}) == 1
    wide = start(3)
    rows = wide.shared("13b", "abcd", **folder("13b", 26 * GB))
    assert [row["device"] for row in rows] == ["0,1"] * 4
    assert loads() == {"generate a": 1, "generate 13b": 1}


def test_a_likelihood_is_asked_where_the_engine_is(start):
    run = start(2)
    (first,) = run.rows("generate", "a")
    assert run.rows("likelihood", "a")[0]["pid"] == first["pid"]


def folder(name: str, size: int) -> dict:
    """The argument of a task whose model is as large; the file has no blocks on the disk."""
    Path(name).mkdir()
    with open(f"{name}/model.safetensors", "wb") as file:
        file.truncate(size)
    return {"model": {"folder": name}}


def test_a_model_gets_as_many_gpus_as_it_needs(start):
    run = start(8)
    small, large = folder("1.8b", int(3.6 * GB)), folder("13b", 26 * GB)
    assert run.rows("generate", "13b", **large)[0]["device"] == "0,1"
    assert run.rows("generate", "1.8b", **small)[0]["device"] == "2"
    (again,) = run.rows("generate", "13b", **large)
    assert again["device"] == "0,1"
    assert loads() == {"generate 13b": 1, "generate 1.8b": 1}


def test_a_host_of_several_gpus_ends_where_one_of_them_is_needed(start):
    run = start(2)
    large, small = folder("13b", 26 * GB), folder("7b", 14 * GB)
    (wide,) = run.rows("generate", "13b", **large)
    (narrow,) = run.rows("generate", "7b", **small)
    assert (wide["device"], narrow["device"]) == ("0,1", "0")
    assert ended(wide["pid"])
    (wide_again,) = run.rows("generate", "13b", **large)
    assert ended(narrow["pid"])
    assert wide_again["device"] == "0,1"


def test_the_width_of_a_model_is_what_the_config_says_of_it_or_follows_from_its_size(start, tmp_path):
    run = start(8)
    streamed = {
        "model": {"folder": "results/pairs/p/alpha=1/model", "streamed": {"sft": "s", "aligned": "7b"}}
    }
    folder("7b", 14 * GB)

    def of(arguments, **changed) -> int:
        return width(run.head.model_copy(update=changed), Task(kind="generate", arguments=arguments))

    assert of(streamed) == 1
    assert of(streamed, memory=16 * GB) == 2
    assert of(streamed, memory=GB) == 8  # all that there are
    assert of(streamed, memory=None) == 1
    assert of(streamed, slots=(None,) * 8, memory=GB) == 1
    assert of(streamed, asked=((str(tmp_path / "results/pairs/p"), 4),)) == 4
    assert of(streamed, asked=((str(tmp_path / "7b"), 4),)) == 4
    assert of(streamed, asked=((str(tmp_path / "7"), 4),)) == 1
    assert of({"models": {"m": {"folder": "7b"}}}, memory=16 * GB) == 2


@pytest.mark.parametrize(
    ("shape", "slots", "memory", "width_"),
    [
        ({"num_attention_heads": 64, "num_key_value_heads": 8}, 3, 30, 2),  # 34B on three GPUs
        ({"num_attention_heads": 64, "num_key_value_heads": 8}, 6, 12, 4),
        ({"num_attention_heads": 36}, 6, 12, 6),
        ({"num_attention_heads": 36, "intermediate_size": 100}, 6, 12, 4),
        ({"num_attention_heads": 14, "num_key_value_heads": 2}, 4, 20, 2),
        ({"text_config": {"num_attention_heads": 9}}, 4, 20, 3),
        ({"num_attention_heads": "many"}, 3, 30, 3),  # the engine says what is wrong
    ],
)
def test_a_model_gets_as_many_gpus_as_it_can_be_spread_over(
    start, tmp_path, monkeypatch, shape, slots, memory, width_
):
    run = start(slots)
    folder("model", 60 * GB)
    (tmp_path / "model/config.json").write_text(json.dumps(shape))
    task = Task(kind="generate", arguments={"model": {"folder": "model"}})
    assert width(run.head.model_copy(update={"memory": memory * GB}), task) == width_
    devices = ",".join(map(str, range(slots)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0")
    shared = {"memory": GB, "job": "1"}
    assert width(run.head.model_copy(update=shared), task) == width_  # in a SLURM job
    assert spread_over(Model(folder=tmp_path / "model")) == devices.split(",")[:width_]  # a job of its own


def test_the_config_says_widths_of_folders():
    models = {
        "sft": {"path": "checkpoints/sft", "resources": {"gpus": 4}},
        "dpo": {"train": {"recipe": "dpo", "from": "sft", "data": "rows"}},
        "hub": {"hub": "org/name", "resources": {"gpus": 2}},
        "plain": {"path": "other"},
    }
    pairs = {
        "one": {"sft": "sft", "aligned": "dpo", "alphas": [1]},
        "two": {"sft": "plain", "aligned": "hub", "alphas": [1]},
    }
    found = asked_gpus(Config.model_validate({"models": models, "pairs": pairs, "prompts": {}}))
    (hub,) = (name for name in found if name.endswith("/models--org--name"))
    assert found == {
        "checkpoints/sft": 4,
        "results/models/dpo": 4,
        hub: 2,
        "results/pairs/one": 4,
        "results/pairs/two": 2,
    }


def test_a_training_has_its_gpus_alone(start):
    """It waits for those who use them, and ends hosts that hold memory there."""
    run = start(2)
    (idle,) = run.rows("generate", "a")
    run.jobs.append(threading.Thread(target=lambda: run.rows("generate", "b", until="go")))
    run.jobs[-1].start()
    wait(lambda: loads()["generate b"])
    seen = []

    def train(name: str) -> None:
        with reserved(2, "zero3.yaml"):
            seen.append((name, os.environ["CUDA_VISIBLE_DEVICES"], ended(idle["pid"])))
            time.sleep(0.5)
            seen.append((name, "end"))

    for name in ("first", "second"):
        run.jobs.append(threading.Thread(target=train, args=(name,)))
        run.jobs[-1].start()
        wait(lambda: run.wishes() == len(run.jobs) - 1)
    time.sleep(0.5)
    assert seen == []
    Path("go").touch()
    for job in run.jobs:
        job.join()
    assert seen == [("first", "0,1", True), ("first", "end"), ("second", "0,1", True), ("second", "end")]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert run.rows("generate", "a")[0]["pid"] != idle["pid"]


def test_trainings_of_a_local_run_do_not_use_the_same_gpus(start):
    """What a training does is done already: it still waits for its four GPUs, and leaves them."""
    from expoflow.training.trl.recipe import Files, Training

    run = start(4)
    recipe = {"recipe": "dpo", "from": "sft", "data": "rows"}  # on zero3-offload, four processes
    source = ModelConfig.model_validate({"train": recipe})
    work = Path("work").resolve()
    (work / "dpo/model").mkdir(parents=True)
    (work / "dpo/metrics.json").write_text(json.dumps({"steps": 3, "loss": 0.5}))
    said = []
    training = Training(
        source=source,
        data=Files(source.train, []),
        folders={"base": Path("base")},
        usages={},
        work=work,
        accelerate=accelerate_config(source.train),
        threads=1,
        progress=said.append,
    )
    run.jobs.append(threading.Thread(target=lambda: run.rows("generate", "a", until="go")))
    run.jobs[-1].start()
    wait(lambda: Path("loads").exists())
    run.jobs += [threading.Thread(target=training.run) for _ in range(2)]
    for job in run.jobs[1:]:
        job.start()
    wait(lambda: run.wishes() == 2)
    assert said == []
    Path("go").touch()
    for job in run.jobs:
        job.join()
    assert said == ["dpo: 3 steps, loss 0.5000"] * 2
    assert run.rows("generate", "a")
    assert run.wishes() == 0


def test_a_training_that_wants_more_gpus_than_there_are_is_refused(start):
    start(2)
    words = r"zero3.yaml starts 4 processes, each on a GPU, here are 2; set num_processes in a copy of it"
    with pytest.raises(ExpoflowError, match=words), reserved(4, "zero3.yaml"):
        pass


def test_a_training_without_gpus_waits_for_nobody(start, monkeypatch):
    start(1)
    with reserved(0, "single.yaml"):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.delenv("EXPOFLOW_HEAD")
    with reserved(4, "zero3.yaml"):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_the_wish_of_a_job_that_was_killed_is_forgotten(start):
    run = start(1)
    run.jobs.append(threading.Thread(target=lambda: run.rows("generate", "a", until="go")))
    run.jobs[-1].start()
    wait(lambda: Path("loads").exists())
    (run.head.folder / f"wish-{0:020d}-1-1").write_text(
        WIDE.model_copy(update={"slots": 1}).model_dump_json()
    )
    Path("go").touch()
    run.rows("generate", "a")
    assert run.wishes() == 0


def test_a_model_that_a_killed_job_was_loading_shares_no_gpu_with_the_next(start):
    run = start(1)
    program = (
        "from expoflow.hosts import client, count, task\n"
        "task.KINDS, count.KINDS = {'generate': 'waiting_tasks:generate'}, {}\n"
        "made = task.Task(kind='generate', key='a', arguments={'key': 'a'})\n"
        "print(*client.run(lambda: made))"
    )
    folder = {"PYTHONPATH": str(Path(__file__).parent)}
    job = subprocess.Popen([sys.executable, "-c", program], env=os.environ | folder)
    wait(lambda: Path("loads").exists())
    job.kill()
    job.wait()
    host = json.loads((run.head.folder / "slot-0").read_text())["pid"]
    assert run.rows("score", "r")[0]["pid"] != host
    assert ended(host)


def test_who_waits_when_the_run_ends_begins_nothing(start):
    run = start(1)
    with entered(run.head.folder) as folder:
        busy = Slot(run.head, 0, folder)
    said = []

    def train() -> None:
        try:
            with reserved(1, "single.yaml"):
                said.append("begun")
        except ExpoflowError as error:
            said.append(str(error))

    waits = threading.Thread(target=train)
    waits.start()
    wait(lambda: run.wishes() == 1)
    run.process.kill()
    run.process.wait()
    wait(lambda: not run.head.folder.exists())
    os.close(busy.lock)
    waits.join()
    assert said == [
        f"snakemake (process {run.process.pid}) has ended, so its jobs end too; run snakemake again"
    ]


def test_a_note_that_cannot_be_written_leaves_the_former_one(start, monkeypatch):
    run = start(1)
    with entered(run.head.folder) as folder:
        slot = Slot(run.head, 0, folder)
        note(slot.lock, pid=77, held={"generate": "a" * 50})
        note(slot.lock, held={})
        assert read_note(folder, 0) == {**NOTHING, "pid": 77}
        monkeypatch.setattr(
            os, "pwrite", lambda *given: os.write(os.open("/dev/full", os.O_WRONLY), given[1])
        )
        with pytest.raises(OSError, match="No space left"):
            note(slot.lock, pid=88)
        assert read_note(folder, 0)["pid"] == 77
    os.close(slot.lock)
    shutil.rmtree(run.head.folder)
