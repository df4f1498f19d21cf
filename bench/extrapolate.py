"""Measure speed and memory of `expoflow extrapolate` and its rivals, in turn: medians and ratios.

    python bench/extrapolate.py --work DIR [--sizes small 1.1B] [--repeats 5] [--mergekit VENV]

The rivals are the floor (read both inputs, write one output, compute nothing), mergekit 0.1.5
task_arithmetic in its own environment (made under --work unless given), and the authors' way: both
models loaded by transformers in bf16, added and saved. CPU seconds of the whole process come first,
since they depend least on what else runs. Hashes are known from a manifest unless a row says
otherwise.
"""

import argparse
import json
import mmap
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pairs import SIZES, make

ALPHAS = ("0.1", "0.2", "0.3", "0.4", "0.5")
CHUNK, SPAN = 1 << 19, 1 << 23  # bytes


def floor(sft: Path, aligned: Path, out: Path, threads: int, sync: bool) -> None:
    """Read both inputs and write one output, as every tool for whole checkpoints must."""
    out.mkdir()
    jobs, outputs, own = [], [], threading.local()
    for file in sorted(aligned.glob("*.safetensors")):
        size = file.stat().st_size
        files = [os.open(sft / file.name, os.O_RDONLY), os.open(file, os.O_RDONLY)]
        outputs.append(os.open(out / file.name, os.O_WRONLY | os.O_CREAT))
        os.ftruncate(outputs[-1], size)
        jobs += [(files, outputs[-1], start, min(SPAN, size - start)) for start in range(0, size, SPAN)]

    def copy(job):
        files, output, first, length = job
        if not hasattr(own, "buffers"):
            own.buffers = [
                mmap.mmap(-1, CHUNK) for _ in files
            ]  # page-aligned: three times as fast as bytearray
        for start in range(first, first + length, CHUNK):
            views = [memoryview(each)[: min(CHUNK, first + length - start)] for each in own.buffers]
            for file, view in zip(files, views, strict=True):
                os.preadv(file, [view], start)
            os.pwrite(output, views[1], start)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(copy, jobs))
        if sync:
            list(pool.map(os.fsync, outputs))


def ours(sft: Path, aligned: Path, out: Path, threads: int, *, alphas=("0.3",), sync=True, hashing=False):
    from expoflow.system import collector

    collector.relax()  # as the command does
    from expoflow.extrapolation import elements  # noqa: F401  (imports are not part of the in-process time)
    from expoflow.extrapolation.extrapolate import extrapolate
    from expoflow.extrapolation.options import Options

    if not sync:
        os.fsync = lambda descriptor: None
    known = {folder: {file.name: "0" * 64 for file in folder.iterdir()} for folder in (sft, aligned)}
    folders = {alpha: out / alpha if len(alphas) > 1 else out for alpha in alphas}

    def run():
        extrapolate(sft, aligned, folders, Options(threads=threads), known=None if hashing else known)

    return run


def authors(sft: Path, aligned: Path, out: Path) -> None:
    """Load both models in bf16, sum parameter by parameter, and save with transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    theta0 = AutoModelForCausalLM.from_pretrained(sft, dtype=torch.bfloat16).state_dict()
    model = AutoModelForCausalLM.from_pretrained(aligned, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameter + 0.3 * (parameter - theta0[name]))
    model.save_pretrained(out, max_shard_size="500MB")


CONTENDERS = {
    "floor": lambda *where: lambda: floor(*where, sync=False),
    "floor, fsync": lambda *where: lambda: floor(*where, sync=True),
    "expoflow, no fsync": lambda *where: ours(*where, sync=False),
    "expoflow": lambda *where: ours(*where),
    "expoflow, first hashing": lambda *where: ours(*where, hashing=True),
    "expoflow, 5 alphas, no fsync": lambda *where: ours(*where, alphas=ALPHAS, sync=False),
    "authors' way": lambda *where: lambda: authors(*where[:3]),
}
MERGEKIT = {"mergekit, float32": "float32", "mergekit, bfloat16": "bfloat16"}


def seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def child(name: str, sft: Path, aligned: Path, out: Path, threads: int) -> None:
    """Run one contender in this process; print its CPU and wall seconds without imports."""
    run = CONTENDERS[name](sft, aligned, out, threads)
    cpu, wall = seconds(), time.perf_counter()
    run()
    print(json.dumps({"inside_cpu": seconds() - cpu, "inside_wall": time.perf_counter() - wall}))


def measured(command: list[str], work: Path) -> dict[str, float]:
    """Return CPU and wall seconds of a process, and the peak of its anonymous memory in GiB."""
    os.sync()
    start = time.perf_counter()
    with open(work / "log", "w") as log:
        environment = {**os.environ, "EXPOFLOW_STORE": str(work / "store"), "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        peak = 0
        status = Path(f"/proc/{process.pid}/status")
        while True:
            found, code, usage = os.wait4(process.pid, os.WNOHANG)
            if found:
                break
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon"):
                    peak = max(peak, int(line.split()[1]))
            time.sleep(0.01)
    text = process.stdout.read().decode()
    if code:
        sys.exit(f"{' '.join(command)} failed:\n{text}{(work / 'log').read_text()[-3000:]}")
    lines = [line for line in text.splitlines() if line.startswith('{"inside')]
    result = json.loads(lines[-1]) if lines else {}
    wall = time.perf_counter() - start
    return result | {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "peak": peak / 2**20}


def mergekit_command(venv: Path, dtype: str, sft: Path, aligned: Path, out: Path, threads: int) -> list[str]:
    config = out.with_suffix(".yaml")
    config.write_text(
        f"merge_method: task_arithmetic\nbase_model: {sft}\ndtype: {dtype}\nout_dtype: bfloat16\n"
        f"models:\n- model: {aligned}\n  parameters: {{weight: 1.3}}\n"
    )
    return [str(venv / "bin" / "mergekit-yaml"), str(config), str(out), "-j", str(threads), "--quiet"]


def table(size: str, results: dict[str, list[dict[str, float]]]) -> None:
    def median(name, key):
        values = [result[key] for result in results[name] if key in result]
        return statistics.median(values) if values else float("nan")

    print(f"\n### {size}: medians of {len(results['floor'])} interleaved runs\n")
    print(
        "| | CPU s inside | CPU s whole | wall s | peak anonymous MiB | CPU inside / floor | CPU whole / expoflow |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in results:
        base = "floor, fsync" if name in ("expoflow", "expoflow, first hashing") else "floor"
        print(
            f"| {name} | {median(name, 'inside_cpu'):.2f} | {median(name, 'cpu'):.2f} | {median(name, 'wall'):.2f} | "
            f"{median(name, 'peak') * 1024:.0f} | {median(name, 'inside_cpu') / median(base, 'inside_cpu'):.2f} | "
            f"{median(name, 'cpu') / median('expoflow', 'cpu'):.2f} |"
        )
    single, five = (f"expoflow, {name}" for name in ("no fsync", "5 alphas, no fsync"))
    for key in ("inside_cpu", "cpu", "wall") if {single, five} <= results.keys() else ():
        print(f"5 alphas fused / 5 single passes, {key}: {median(five, key) / 5 / median(single, key):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for pairs, outputs and mergekit's venv"
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "1.1B"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mergekit", type=Path, help="a venv that has mergekit 0.1.5")
    parser.add_argument("--only", nargs="+", help="these rows and the floor")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, *folders = arguments.child
        child(name, *map(Path, folders), arguments.threads)
        return
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    venv = arguments.mergekit or work / "mergekit"
    if not (venv / "bin" / "mergekit-yaml").is_file():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", "mergekit==0.1.5"], check=True)
    rows = [*CONTENDERS, *MERGEKIT]
    if arguments.only:
        rows = [row for row in rows if row in {"floor", "floor, fsync", "expoflow", *arguments.only}]
    for size in arguments.sizes:
        sft, aligned = make(work / size, size)
        results = {row: [] for row in rows}
        for repeat in range(arguments.repeats + 1):
            for row in rows:
                out = work / "out"
                for leftover in (out, work / "store"):
                    shutil.rmtree(leftover, ignore_errors=True)
                here = [sys.executable, __file__, "--work", str(work), "--threads", str(arguments.threads)]
                command = [*here, "--child", row, str(sft), str(aligned), str(out)]
                if row in MERGEKIT:
                    command = mergekit_command(venv, MERGEKIT[row], sft, aligned, out, arguments.threads)
                result = measured(command, work)
                if repeat:  # the first round fills the page cache
                    results[row].append(result)
            print(f"{size}: round {repeat} of {arguments.repeats}", file=sys.stderr)
        shutil.rmtree(work / "out", ignore_errors=True)
        table(size, results)


if __name__ == "__main__":
    main()
