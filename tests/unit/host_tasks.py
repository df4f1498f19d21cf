"""Work for test_host.py, done inside real hosts: it counts, loads, waits, prints and fails as it is told."""

import ctypes
import os
import signal
import time
import warnings
from multiprocessing import get_context, shared_memory
from pathlib import Path

from expoflow.errors import CheckpointError, ConfigError
from expoflow.system.progress import report


def note(name: str, text: str) -> None:
    with open(name, "a") as file:
        file.write(text)


class Thing:
    """Something loaded; its files say when it was made and closed."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.number = self.made

    def close(self) -> None:
        note("closed", f"{self.number}\n")


def count(held, arguments):
    """Rows 0 to n; `wait: [row, path]` waits before that row until the path exists."""
    thing = held.get("count", arguments.get("key", ""), Thing)
    row, path = arguments.get("wait", (None, None))
    try:
        for index in range(arguments.get("start", 0), arguments["n"]):
            while index == row and not Path(path).exists():
                time.sleep(0.01)
                yield []
            yield [{"index": index, "third": index / 3, "pid": os.getpid(), "loaded": thing.number}]
    finally:
        note("finished", "x")


def generate(held, arguments):
    """A response of ten tokens to every prompt that is not done, as `count` makes rows."""
    n = len(arguments["prompts"]) * arguments["config"]["samples"]
    for rows in count(held, arguments | {"start": len(arguments["done"]), "n": n}):
        yield [row | {"response_tokens": 10} for row in rows]


def ask(held, arguments):
    """Answers as a benchmark has them, which says how many there will be; those that are kept are not asked for again."""
    report(len(arguments["kept"]), arguments["n"], "answers")
    for rows in count(held, arguments | {"start": len(arguments["kept"])}):
        yield [{"kept": row, "pid": os.getpid()} for row in rows]


def crash(held, arguments):
    """A row, then the process dies as by a bug in native code."""
    yield [{"pid": os.getpid()}]
    ctypes.string_at(0)


def fail(held, arguments):
    """Raise what is asked for, after loading."""
    held.get("count", "", Thing)
    yield [{"pid": os.getpid()}]
    if arguments["how"] == "checkpoint":
        raise CheckpointError("model 'x' is broken; mend it")
    if arguments["how"] == "config":
        raise ConfigError(["one", "two"])
    raise ZeroDivisionError("in the work")


def talk(held, arguments):
    """Print, warn, start a process that stays, and tell what this process was given."""
    print("said in the task")
    warnings.warn("warned in the task", stacklevel=1)
    child = os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "600"])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield [
        {"pid": os.getpid(), "child": child, "device": visible, "threads": os.environ.get("OMP_NUM_THREADS")}
    ]


def threads(held, arguments):
    """A row a second: how many threads this process has."""
    for _ in range(arguments["n"]):
        yield [{"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}]
        yield []
        time.sleep(1.1)
        yield []


def fork(held, arguments):
    """Leave a child that has all that this process has open, then wait to be ended."""
    if not (child := os.fork()):
        print("said in the fork")
        time.sleep(600)
        os._exit(0)
    yield [{"pid": os.getpid(), "child": child}]
    while True:
        time.sleep(0.01)
        yield []


def spread(held, arguments):
    """Work with a spawned process and memory shared with it, as vLLM does over several GPUs; `die` kills that process first.

    The memory is the spawned process' own.
    """
    parts = get_context("spawn")
    here, there = parts.Pipe()
    worker = parts.Process(target=share, args=(there,), daemon=True)
    worker.start()
    memory = shared_memory.SharedMemory(here.recv())
    yield [
        {
            "pid": os.getpid(),
            "worker": worker.pid,
            "memory": memory.name,
            "devices": os.environ["CUDA_VISIBLE_DEVICES"],
        }
    ]
    if Path("die").exists():
        Path("die").unlink()
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        raise RuntimeError("a part does not answer")
    print("said in the task")
    os.system("echo said by a program")
    yield [{"finished": True}]


def share(connection):
    """The other process of `spread`; as vLLM's, it has renamed itself, which leaves nothing of its environment to be read."""
    start, end = map(int, Path("/proc/self/stat").read_text().split()[49:51])
    ctypes.memset(start, 0, end - start)
    connection.send(shared_memory.SharedMemory(create=True, size=1 << 20).name)
    time.sleep(600)
