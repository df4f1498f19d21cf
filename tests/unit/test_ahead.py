"""The next tensor is made while the engine takes the present one."""

import gc
import threading
import weakref

import pytest
import torch
from expoflow.engines.ahead import ahead

PATIENCE = 120  # seconds


def test_one_is_made_ahead_and_no_more():
    asked = [threading.Event() for _ in range(5)]

    def tensors():
        for at, event in enumerate(asked):
            event.set()
            yield str(at), torch.full((2,), at)

    stream = ahead(tensors())
    got = []
    for at, (name, tensor) in enumerate(stream):
        got.append((name, tensor.tolist()))
        assert all(event.wait(PATIENCE) for event in asked[: at + 2])
        assert not any(event.is_set() for event in asked[at + 2 :])
    assert got == [(str(at), [at, at]) for at in range(5)]


def test_two_tensors_are_alive_besides_the_consumers():
    alive = weakref.WeakSet()

    class Own(torch.Tensor):
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    def tensors():
        for at in range(10):
            gc.collect()
            assert len(alive) <= 2  # the consumer's among them, before this one
            made = torch.zeros(3).as_subclass(Own)
            alive.add(made)
            yield str(at), made
            del made

    assert sum(1 for _ in ahead(tensors())) == 10


def test_an_error_comes_at_its_turn_and_the_thread_ends():
    def tensors():
        yield "first", torch.zeros(1)
        raise OSError("no such file")

    before = threading.active_count()
    stream = ahead(tensors())
    assert next(stream)[0] == "first"
    with pytest.raises(OSError, match="no such file"):
        next(stream)
    assert threading.active_count() == before


def test_closing_ends_the_thread():
    before = threading.active_count()
    stream = ahead((str(at), torch.zeros(1)) for at in range(100))
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before
