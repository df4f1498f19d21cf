"""Work for test_waiting.py, done inside real hosts: what is loaded, and where, is written down."""

import os
import time
from pathlib import Path


class Loaded:
    """Something that takes a moment to load."""

    def __init__(self, name: str):
        with open("loads", "a") as file:
            file.write(f"{name} on {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        time.sleep(0.5)

    def close(self) -> None:
        """Nothing to free."""


def work(kind):
    """The work of a kind of task: hold `key`, and yield until the file `until` is there, if one is named."""

    def answer(held, arguments):
        held.get(kind, arguments["key"], lambda: Loaded(f"{kind} {arguments['key']}"))
        yield [{"pid": os.getpid(), "device": os.environ.get("CUDA_VISIBLE_DEVICES")}]
        while "until" in arguments and not Path(arguments["until"]).exists():
            time.sleep(0.01)
            yield []

    return answer


generate, score = work("generate"), work("score")
