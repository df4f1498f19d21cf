"""The speed of this machine's CPU in 16-bit arithmetic."""

import time
from functools import cache

SIZE = 256  # rows and columns of the matrices that are multiplied
ROUNDS = 3
HALF = ("bfloat16", "float16")
SLOW = 4  # times as long as float32: CPUs without 16-bit instructions take 10 to 50 times, others less than 2


@cache
def is_slow(dtype: str) -> bool:
    """Return whether the CPU multiplies matrices of `dtype` much slower than those of float32.

    `dtype` is torch's name of a 16-bit type. The measurement takes a few hundredths of a second,
    and every job must reach the same answer.
    """
    return dtype in HALF and slowness(dtype) > SLOW


def slowness(dtype: str) -> float:
    """Return how many times as long a matrix product in `dtype` takes as one in float32.

    One thread computes, and only its own CPU time counts, so the machine's other load does not
    matter.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _seconds(dtype) / _seconds("float32")
    finally:
        torch.set_num_threads(threads)


def _seconds(dtype: str) -> float:
    """Return this thread's shortest CPU time for a product."""
    import torch

    matrix = torch.ones(SIZE, SIZE, dtype=getattr(torch, dtype))
    matrix @ matrix
    times = []
    for _ in range(ROUNDS):
        begin = time.thread_time()
        matrix @ matrix
        times.append(time.thread_time() - begin)
    return min(times)


def computed_in(dtype: str, what: object) -> str:
    """Return the type in which a CPU computes with weights stored in `dtype`.

    It is float32 if that is faster; the log then says so about `what`.
    """
    if not is_slow(dtype):
        return dtype
    print(
        f"{what}: this CPU is slow in {dtype}, so it computes in float32, with the weights as they are stored",
        flush=True,
    )
    return "float32"
