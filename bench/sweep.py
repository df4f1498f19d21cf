"""Compare one engine that moves from alpha to alpha with one engine start per alpha.

    python bench/sweep.py --work DIR [--size SIZE | --sft DIR --aligned DIR] [--engine transformers|vllm]

Six alphas are run over 1,000 prompts of the miniature. Its models are trained under --work unless a
pair is given. The row `raw` is one engine start plus the engine's own generation of the same
tokens; the loading of its weights is not timed. `one engine` is what the workflow's jobs do, with
host and part files. Ratios are medians of the rounds' ratios. Run it alone on the machine, in the
engine's environment.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# When the parent started this process: an engine start includes the interpreter's start.
STARTED = float(os.environ.get("SWEEP_STARTED", time.time()))

from expoflow.config.stages import GenerateConfig  # noqa: E402
from expoflow.engines import generate  # noqa: E402
from expoflow.engines.generate import request_seed  # noqa: E402
from expoflow.engines.model import Model, Request  # noqa: E402
from expoflow.extrapolation.streamed_checkpoint import Streamed  # noqa: E402
from expoflow.hosts.head import Head, announce  # noqa: E402
from expoflow.miniature.world import prompts  # noqa: E402

ALPHAS = (1, 2, 4, 6, 8, 12)


@cache
def asked(count: int) -> list:
    """Return the first prompts of the miniature's training split, which has 1,098."""
    return prompts("train", 0)[:count]


def config(engine: str) -> GenerateConfig:
    return GenerateConfig(engine=engine, max_tokens=64)


def load(model: Model, engine: str):
    from expoflow.engines.answering import Loaded

    return Loaded(model, engine)


def raw(where: argparse.Namespace) -> dict[str, float]:
    """Measure one engine start, and the engine's own time for every alpha's tokens."""
    from expoflow.engines.chat import Chat

    result = {"generation": 0.0, "tokens": 0}
    loaded = load(Model(folder=where.aligned), where.engine)
    result["start"] = time.time() - STARTED
    chat = Chat(loaded.engine.tokenizer)
    requests = [
        Request(chat.token_ids(each.messages), request_seed(42, 0, each.prompt_id))
        for each in asked(where.prompts)
    ]
    for alpha in ALPHAS:
        loaded.move(Model(folder=where.aligned.parent / f"alpha={alpha}"))
        began = time.perf_counter()
        finished = [row for step in loaded.engine.generate(requests, config(where.engine)) for row in step]
        result["generation"] += time.perf_counter() - began
        result["tokens"] += sum(completion.tokens for _, completion in finished)
    return result


def switch(where: argparse.Namespace) -> dict[str, float]:
    """Return the median time of a move to another alpha, streamed."""
    models = [streamed(where, alpha) for alpha in ALPHAS]
    loaded = load(models[0], where.engine)
    start, times = time.time() - STARTED, []
    for model in models[1:]:
        began = time.perf_counter()
        loaded.move(model)
        times.append(time.perf_counter() - began)
    return {"start": start, "switch": statistics.median(times)}


def streamed(where: argparse.Namespace, alpha: float) -> Model:
    return Model(folder=where.aligned, streamed=Streamed(sft=where.sft, aligned=where.aligned, alpha=alpha))


def time_generation(model: Model, where: argparse.Namespace, name: str) -> None:
    rows = generate.generate(model, asked(where.prompts), config(where.engine), where.out / name, "bench")
    assert len(rows) == where.prompts


def one_engine(where: argparse.Namespace) -> dict[str, float]:
    announce(1)
    for alpha in ALPHAS:
        time_generation(streamed(where, alpha), where, f"{alpha}.part")
    head = Head.model_validate_json(os.environ["EXPOFLOW_HEAD"])
    host = json.loads((head.folder / "slot-0").read_text())["pid"]
    ticks = Path(f"/proc/{host}/stat").read_text().rpartition(")")[2].split()[11:13]
    return {"host_cpu": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")}


def a_start_each(where: argparse.Namespace) -> dict[str, float]:
    os.environ["EXPOFLOW_HOST"] = "off"
    time_generation(streamed(where, where.alpha), where, f"{where.alpha}.part")
    return {}


def stored(where: argparse.Namespace) -> dict[str, float]:
    from expoflow.extrapolation.extrapolate import extrapolate

    os.environ["EXPOFLOW_HOST"] = "off"
    folder = where.out / f"alpha={where.alpha}"
    extrapolate(where.sft, where.aligned, {str(where.alpha): folder})
    time_generation(Model(folder=folder), where, f"{where.alpha}.part")
    return {}


CHILDREN = {
    "raw": raw,
    "switch": switch,
    "one engine, moved": one_engine,
    "an engine start for each alpha, streamed": a_start_each,
    "an engine start for each alpha, stored": stored,
}


def measured(name: str, where: argparse.Namespace, alphas: tuple[float | None, ...]) -> dict[str, float]:
    """Return wall and CPU seconds of a contender's processes, and the bytes of its output."""
    shutil.rmtree(where.out, ignore_errors=True)
    where.out.mkdir()
    before, began, result = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), {}
    for alpha in alphas:
        command = [
            sys.executable,
            __file__,
            "--child",
            name,
            "--work",
            str(where.work),
            "--engine",
            where.engine,
        ]
        command += ["--sft", str(where.sft), "--aligned", str(where.aligned), "--prompts", str(where.prompts)]
        command += ["--alpha", str(alpha)] if alpha else []
        environment = os.environ | {"SWEEP_STARTED": str(time.time())}
        with open(where.work / "log", "w") as log:
            run = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=where.work, env=environment
            )
        if run.returncode:
            sys.exit(f"{name} failed:\n{run.stdout[-2000:]}{(where.work / 'log').read_text()[-3000:]}")
        result |= json.loads(run.stdout.splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    written = sum(path.stat().st_size for path in where.out.rglob("*.safetensors"))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + result.pop("host_cpu", 0)
    return {"wall": time.perf_counter() - began, "cpu": cpu, "written": written, **result}


def prepare(where: argparse.Namespace) -> None:
    """Make the pair, and store its alphas for `raw`."""
    from expoflow.config.recipes import MiniatureDpo, MiniatureSft
    from expoflow.extrapolation.extrapolate import extrapolate
    from expoflow.training.loop import dpo, sft
    from pairs import make

    where.work.mkdir(parents=True, exist_ok=True)
    if where.size:
        where.sft, where.aligned = make(where.work / where.size, where.size)
    elif where.sft is None:
        where.sft, where.aligned = where.work / "sft", where.work / "aligned"
        if not (where.aligned / "config.json").is_file():
            usual = MiniatureSft.model_construct().settings()
            sft.train(where.sft, seed=42, progress=print, **usual)
            usual = MiniatureDpo.model_construct().settings() | {"fraction": 0.4}
            dpo.train(where.aligned, base=where.sft, seed=42, progress=print, **usual)
    for alpha in ALPHAS:
        if not (folder := where.aligned.parent / f"alpha={alpha}").is_dir():
            extrapolate(where.sft, where.aligned, {str(alpha): folder})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for models and outputs")
    parser.add_argument("--size", help="a pair of that size with random weights")
    parser.add_argument("--sft", type=Path)
    parser.add_argument("--aligned", type=Path)
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="without the engine starts for each alpha")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--alpha", type=float, help=argparse.SUPPRESS)
    where = parser.parse_args()
    where.work = where.work.resolve()
    where.out = where.work / "out"
    if where.child:
        print(json.dumps(CHILDREN[where.child](where)), flush=True)
        return
    prepare(where)
    names = [name for name in CHILDREN if not (where.quick and "each" in name)]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for repeat in range(where.repeats):
        for name, results in rows.items():
            results.append(measured(name, where, ALPHAS if "each" in name else (None,)))
        print(f"round {repeat + 1} of {where.repeats}", file=sys.stderr)
    middle = {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in rows.items()
    }
    plain = [result["start"] + result["generation"] for result in rows["raw"]]
    print(
        f"\n{where.engine}: {len(ALPHAS)} alphas x {where.prompts} prompts, {middle['raw']['tokens']:.0f} tokens\n"
    )
    print("| | wall s | CPU s | MB of weights written | wall / raw |\n| --- | ---: | ---: | ---: | ---: |")
    print(f"| raw: one engine start + generation | {statistics.median(plain):.1f} | | | 1.00 |")
    for name in names[2:]:
        each = middle[name]
        ratio = statistics.median(result["wall"] / raw for result, raw in zip(rows[name], plain, strict=True))
        print(
            f"| {name} | {each['wall']:.1f} | {each['cpu']:.1f} | {each['written'] / 1e6:.1f} | {ratio:.2f} |"
        )
    start, moved = middle["switch"]["start"], middle["switch"]["switch"]
    print(f"\nengine start {start:.2f} s, switch of alpha {moved:.3f} s: 1/{start / moved:.0f}")


if __name__ == "__main__":
    main()
