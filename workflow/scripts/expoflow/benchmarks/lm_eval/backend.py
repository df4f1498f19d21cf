"""A task of the kind "lm_eval": lm-eval on a model that stays loaded, one answer at a time.

lm-eval is one long call. It runs in a thread, so answers go out as they come, and the task can be
stopped.
"""

import gc
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from lm_eval.api.model import LM

from expoflow.benchmarks.lm_eval import harness
from expoflow.benchmarks.lm_eval.answers import Asked, Graded, Kept, graded
from expoflow.engines.chat import Chat
from expoflow.hosts.task import Held


class LoadedLM:
    """A model behind lm-eval's interface that can be closed."""

    def __init__(self, lm: LM):
        self.lm = lm

    def close(self) -> None:
        """Free its memory."""
        import torch

        engine = getattr(getattr(self.lm, "model", None), "llm_engine", None)
        del self.lm
        if engine is not None:  # lm-eval's vllm backend
            from vllm.distributed import cleanup_dist_env_and_memory

            engine.engine_core.shutdown()
            del engine
            cleanup_dist_env_and_memory()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class StoppedError(Exception):
    """The answers are no longer wanted."""


def answer(held: Held, arguments: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Do a task of the form `Asked`.

    Yields {kept: Kept} as answers come, and {graded: Graded} at the end.
    """
    asked = Asked.model_validate(arguments)
    loaded = held.get(
        "lm_eval", asked.key(), lambda: LoadedLM(harness.language_model(asked.model, asked.config))
    )

    def ask(tell: Callable[[Kept], None]) -> list[Graded]:
        chat = Chat.of(loaded.lm.tokenizer, asked.model)
        return graded(harness.evaluate(harness.Resuming(loaded.lm, chat, asked.kept, tell), asked))

    with closing(told(ask)) as steps:
        for step in steps:
            if isinstance(step, Kept):
                yield [{"kept": step.model_dump(mode="json")}]
            else:
                yield [{"graded": row.model_dump(mode="json")} for row in step]


def told(work: Callable[[Callable[[Kept], None]], list[Graded]]) -> Iterator[Kept | list[Graded]]:
    """Run `work` in a thread; yield what it reports, then what it returns.

    If the generator is closed, `work` ends at its next answer.
    """
    out: queue.SimpleQueue[Kept | list[Graded] | BaseException] = queue.SimpleQueue()
    stopped = threading.Event()

    def tell(kept: Kept) -> None:
        if stopped.is_set():
            raise StoppedError
        out.put(kept)

    def run() -> None:
        try:
            out.put(work(tell))
        except BaseException as error:
            out.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while isinstance(step := out.get(), Kept):
            yield step
        if isinstance(step, BaseException):
            raise step
        yield step
    finally:
        stopped.set()
        thread.join()
