"""Compare expoflow's compiled loop with the same loop in numba, and with a few torch operations.

    python bench/kernel.py --work DIR [--repeats 7] [--sizes tiny small]

There are two tables. The first has nanoseconds per element and alpha in one thread, by CPU time, in
blocks of the writer's size. The second has whole processes that extrapolate a bf16 pair by one
alpha in one thread, with imports and compilation; nothing is hashed or forced to the disk. The
contenders take turns. The tables show medians, and ratios to expoflow's loop. "Other bits" is the
share of elements that differ from its result. A contender is left out if its package is not
installed (`pip install numba`).
"""

import argparse
import ctypes
import importlib.util
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5)
BLOCK = 1 << 22  # bytes of output at once, over all alphas, as in the writer
CHUNKS = {
    "lerp": 1 << 20,
    "widened": 1 << 19,
}  # elements that torch computes at once: the fastest of five sizes
ELEMENTS = 1 << 23
SIZES = {"BF16": 2, "F16": 2, "F32": 4}


def ours():
    from expoflow.extrapolation import kernel

    return kernel.fill


def nothing():
    """Return a loop that does nothing, which shows the cost of the process without its loop."""
    return lambda *arguments: True


def numba():
    from expoflow.extrapolation.kernel import LARGEST, formula
    from numba_kernel import TYPES, extrapolated

    def fill(outs, theta1, theta0, kinds, count, alphas):
        unit, wide = TYPES[kinds[0]]
        models = {True: _array(theta1, unit, 0, count), False: _array(theta0, unit, 0, count)}
        groups = {}
        for out, alpha in zip(outs, alphas, strict=True):
            theta1_first, *how = formula(kinds, alpha)
            groups.setdefault(theta1_first, []).append((_array(out, unit, 0, count), *how))
        most = 0
        for theta1_first, group in groups.items():
            arrays, weights, from_b = zip(*group, strict=True)
            a, b = models[theta1_first], models[not theta1_first]
            most = max(most, extrapolated(arrays, a, b, weights, from_b, wide))
        return most < LARGEST[kinds[0]]

    return fill


def torch_lerp():
    """Compute theta0 + (1 + alpha) * (theta1 - theta0) in one operation.

    fp32 is computed in float32; expoflow uses float64 for it.
    """
    import torch

    def step(out, one, zero, alpha):
        torch.lerp(zero, one, 1 + alpha, out=out)

    return _by_torch(step, CHUNKS["lerp"])


def torch_widened():
    """Compute like expoflow, but without fused multiply-add: widen, subtract, add, round."""
    import torch

    memory = {}

    def step(out, one, zero, alpha):
        wide = torch.float64 if out.dtype == torch.float32 else torch.float32
        if wide not in memory:
            memory[wide] = torch.empty(2, CHUNKS["widened"], dtype=wide)
        base, delta = memory[wide][:, : len(out)]
        base.copy_(one)
        delta.copy_(zero)
        torch.sub(base, delta, out=delta)
        torch.add(base, delta, alpha=alpha, out=delta)
        out.copy_(delta)

    return _by_torch(step, CHUNKS["widened"])


def _by_torch(step, chunk: int):
    import torch

    torch.set_num_threads(1)
    types = {
        "BF16": (np.int16, torch.bfloat16),
        "F16": (np.int16, torch.float16),
        "F32": (np.int32, torch.float32),
    }

    def fill(outs, theta1, theta0, kinds, count, alphas):
        unit, kind = types[kinds[0]]
        finite = True
        for start in range(0, count, chunk):
            length = min(chunk, count - start)
            one, zero, *rest = (
                torch.from_numpy(_array(at, unit, start, length)).view(kind) for at in (theta1, theta0, *outs)
            )
            for out, alpha in zip(rest, alphas, strict=True):
                step(out, one, zero, alpha)
                finite &= bool(out.sum().isfinite())  # the cheapest test for NaN and Inf
        return finite

    return fill


def _array(place: int, unit: type, start: int, count: int) -> np.ndarray:
    size = np.dtype(unit).itemsize
    return np.frombuffer((ctypes.c_char * (count * size)).from_address(place + start * size), unit)


CONTENDERS = {  # by name: the function that makes a replacement of `kernel.fill`, and its package
    "expoflow": (ours, "llvmlite"),
    "numba": (numba, "numba"),
    "torch, widened": (torch_widened, "torch"),
    "torch.lerp": (torch_lerp, "torch"),
    "no loop": (nothing, "sys"),
}


def available() -> list[str]:
    names = []
    for name, (_, package) in CONTENDERS.items():
        if package in sys.modules or importlib.util.find_spec(package):
            names.append(name)
        else:
            print(f"{name} is left out: {package} is not installed")
    return names


def parents(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of theta1 and theta0, which differ by a step of 10% of the weights."""
    generator = np.random.default_rng(3)
    theta0 = generator.standard_normal(ELEMENTS, np.float32) * np.float32(0.02)
    theta1 = theta0 + generator.standard_normal(ELEMENTS, np.float32) * np.float32(0.002)
    if kind == "BF16":
        return tuple((each.view(np.uint32) >> 16).astype(np.uint16) for each in (theta1, theta0))
    return tuple(each.astype({"F16": np.float16, "F32": np.float32}[kind]) for each in (theta1, theta0))


def throughput(names: list[str], kind: str, alphas: tuple[float, ...], repeats: int) -> None:
    size = SIZES[kind]
    names = [name for name in names if name != "no loop"]
    theta1, theta0 = parents(kind)
    block = BLOCK // size // len(alphas)
    places = [each.ctypes.data for each in (theta1, theta0)]
    times, outs = {name: [] for name in names}, {}
    fills = {name: CONTENDERS[name][0]() for name in names}
    for repeat in range(repeats + 1):
        for name, fill in fills.items():
            rows = outs.setdefault(name, np.zeros((len(alphas), block * size), np.uint8))
            targets = [row.ctypes.data for row in rows]
            start = time.thread_time()
            for first in range(0, ELEMENTS, block):
                count = min(block, ELEMENTS - first)
                assert fill(targets, *(at + first * size for at in places), (kind,) * 3, count, alphas)
            if repeat:  # the first round includes compilation
                times[name].append((time.thread_time() - start) / ELEMENTS / len(alphas) * 1e9)
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name in names:
        bits = [outs[each].view(f"u{size}") for each in (name, names[0])]
        print(
            f"| {kind} | {len(alphas)} | {name} | {medians[name]:.3f} | {medians[name] / medians[names[0]]:.2f} | "
            f"{(bits[0] != bits[1]).mean():.1e} |"
        )


def child(name: str, sft: Path, aligned: Path, out: Path) -> None:
    """Extrapolate with another loop, in this process."""
    import extrapolate

    run = extrapolate.ours(sft, aligned, out, 1, sync=False)
    from expoflow.extrapolation import kernel

    kernel.fill = CONTENDERS[name][0]()
    run()


def processes(names: list[str], size: str, work: Path, repeats: int) -> None:
    from extrapolate import measured
    from pairs import make

    sft, aligned = make(work / size, size)
    rows = list(names)
    if "numba" in names:  # it first compiles into an empty cache, and later finds its loop there
        rows.insert(rows.index("numba"), "numba, not cached")
    results = {row: [] for row in rows}
    for repeat in range(repeats + 1):
        for row in rows:
            shutil.rmtree(work / "out", ignore_errors=True)
            if row == "numba, not cached":
                shutil.rmtree(work / "numba", ignore_errors=True)
            command = [sys.executable, __file__, "--work", work, "--child", row.removesuffix(", not cached")]
            result = measured([*map(str, command), str(sft), str(aligned), str(work / "out")], work)
            if repeat:
                results[row].append(result)
    base = results[names[0]]
    for row in rows:
        cpu, wall = (statistics.median(each[key] for each in results[row]) for key in ("cpu", "wall"))
        ratio = cpu / statistics.median(each["cpu"] for each in base)
        print(f"| {size} | {row} | {cpu:.2f} | {wall:.2f} | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for pairs and outputs")
    parser.add_argument("--sizes", nargs="*", default=["tiny", "small"], help="pairs for whole processes")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, *folders = arguments.child
        child(name, *map(Path, folders))
        return
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(work / "numba")
    names = available()
    print("\n| type | alphas | | ns for an element and alpha | / expoflow | other bits |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for kind in SIZES:
        for alphas in ((0.3,), ALPHAS):
            throughput(names, kind, alphas, arguments.repeats)
    print("\n| pair | | CPU s | wall s | CPU / expoflow |")
    print("| --- | --- | ---: | ---: | ---: |")
    for size in arguments.sizes:
        processes(names, size, work, arguments.repeats)


if __name__ == "__main__":
    main()
