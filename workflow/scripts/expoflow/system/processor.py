"""What this machine's CPU is good at."""

import time
from functools import cache

SIZE = 256  # rows and columns of the matrices that are multiplied
ROUNDS = 3
HALF = ("bfloat16", "float16")
SLOW = 4  # times as long as float32: a CPU without instructions takes 10 to 50 times as long, one that has them less than 2


@cache
def is_slow(dtype: str) -> bool:
    """Whether the CPU multiplies matrices of `dtype`, torch's name of a 16-bit type, slower than those of float32.

    It is measured, in some hundredths of a second, and every job must come to the same answer.
    """
    return dtype in HALF and slowness(dtype) > SLOW


def slowness(dtype: str) -> float:
    """How many times as long as one of float32 a product of matrices of `dtype` takes.

    One thread computes, and only the time counts in which it does: what else the machine is busy with is no matter.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _seconds(dtype) / _seconds("float32")
    finally:
        torch.set_num_threads(threads)


def _seconds(dtype: str) -> float:
    """The least time that this thread computes at a product."""
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
    """The type in which a CPU computes what is stored in `dtype`: float32 if that is faster, which the log then says of `what`."""
    if not is_slow(dtype):
        return dtype
    print(
        f"{what}: this CPU is slow in {dtype}: computed in float32, with the weights as they are stored",
        flush=True,
    )
    return "float32"
