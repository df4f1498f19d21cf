"""Work for test_waiting.py, done inside real hosts: what is loaded, and where, is written down."""

import os
import signal
import time
from pathlib import Path

from expoflow.errors import CheckpointError


class Loaded:
    """Something that takes a moment to load."""

    def __init__(self, name: str):
        with open("loads", "a") as file:
            file.write(f"{name} on {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        time.sleep(0.5)

    def close(self) -> None:
        """Nothing to free."""


def work(kind):
    """The work of a kind of task: hold `key`, yield until the file `until` is there, if one is named, then a row for each of `items`.

    The item `bad` is an error, at `hold` nothing goes on, and the process dies at the item that the file `die` names, once.
    """

    def answer(held, arguments):
        held.get(kind, arguments["key"], lambda: Loaded(f"{kind} {arguments['key']}"))
        yield [{"pid": os.getpid(), "device": os.environ.get("CUDA_VISIBLE_DEVICES")}]
        while "until" in arguments and not Path(arguments["until"]).exists():
            time.sleep(0.01)
            yield []
        for item in arguments.get("items", ()):
            if item == arguments.get("bad"):
                raise CheckpointError(f"item {item} is bad")
            while item == arguments.get("hold"):
                time.sleep(0.01)
                yield []
            if Path("die").exists() and Path("die").read_text() == item:
                Path("die").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            print("did", item, "here")
            yield [{"item": item, "pid": os.getpid(), "device": os.environ.get("CUDA_VISIBLE_DEVICES")}]

    return answer


generate, score = work("generate"), work("score")
