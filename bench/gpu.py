"""The steps of gpu.sh, each in its own process, and a table of what they show about this machine.

    python bench/gpu.py --work DIR [--until SECONDS since 1970, in ten minutes by default]

Weights are random. Without a CUDA GPU everything is tiny and runs on the CPU; those figures say
nothing about a GPU.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from expoflow.config.stages import GenerateConfig
from expoflow.engines.model import Model, Request
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors
from expoflow.system import child
from pairs import SIZES, make

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
ALPHAS = (0.3, -0.4, 2.0)
DISK, MEMORY = (
    45e9,
    20e9,
)  # free bytes that the 6.7B model needs, 36 GB of them for three models; otherwise the 1.1B model is used
LEAST = 10e9  # bytes on disk that the 1.1B model needs
NO_TIME = "no time left"
OWN = "expoflow-gpu-check"  # folder below DIR; its `models` are removed at the end, and gpu.sh's packages are there
CLOSING = 5  # seconds in which the models are removed and the table is printed
Line = dict[str, object]


def clock() -> float:
    """Return the time in seconds after the GPU has finished all its work."""
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def free() -> float:
    """Return the free GB of the GPU."""
    return torch.cuda.mem_get_info()[0] / 1e9 if GPU else 0.0


class Pair:
    """The models of random weights that the steps use."""

    def __init__(self, work: Path, size: str):
        self.work, self.size = work, size
        self.folder, self.classifier = (work / OWN / "models" / name for name in (size, "classifier"))
        self.sft, self.aligned = (self.folder / role for role in ("sft", "aligned"))
        self.bytes = sum(path.stat().st_size for path in self.aligned.glob("*.safetensors"))

    def at(self, alpha: float) -> Model:
        return Model(folder=self.aligned, streamed=Streamed(sft=self.sft, aligned=self.aligned, alpha=alpha))


def writing(pair: Pair) -> Iterator[Line]:
    """The two models of a pair."""
    began = clock()
    make(pair.folder, pair.size, DEVICE)
    pair = Pair(pair.work, pair.size)
    yield {"what": f"two models of {pair.size} written", "GB/s": 2 * pair.bytes / 1e9 / (clock() - began)}


def streaming(pair: Pair) -> Iterator[Line]:
    """Measure how fast the CPU computes weights, in GB of theta2, and copies them to the GPU."""
    for threads in (1, 4, 8, 16):
        done, began = 0, clock()
        for _, tensor in tensors(pair.sft, pair.aligned, 0.3, Options(threads=threads)):
            done += tensor.nbytes
            if done > pair.bytes / 5 or clock() - began > 15:
                break
        yield {"what": f"theta2 computed by {threads} threads", "GB/s": done / 1e9 / (clock() - began)}
    if GPU:
        source = torch.ones(1 << 30, dtype=torch.uint8)
        target = torch.empty_like(source, device=DEVICE)
        for name, each in (("pageable", source), ("pinned", source.pin_memory())):
            target.copy_(each)
            began = clock()
            for _ in range(4):
                target.copy_(each, non_blocking=True)
            yield {"what": f"copy to the GPU, {name}", "GB/s": 4 * each.nbytes / 1e9 / (clock() - began)}


def engine(pair: Pair) -> Iterator[Line]:
    """Measure moves to other alphas, by reading and in place, and generation."""
    from expoflow.engines import in_place
    from expoflow.engines.transformers import TransformersEngine
    from expoflow.extrapolation.arithmetic import exact

    yield {"what": "one rounding for a product and its sum", "right": exact(DEVICE)}
    yield {"what": "the formula in three types, ten alphas", "differ": formula()}
    began = clock()
    loaded = TransformersEngine(pair.at(1.0))
    yield {"what": "engine started (transformers)", "s": clock() - began}
    in_place.SHARE = 2  # nothing else loads models here at the same time
    state = loaded.model.state_dict()
    for alpha in ALPHAS:
        computing, copying, last = 0.0, 0.0, clock()
        for name, tensor in tensors(pair.sft, pair.aligned, alpha):
            computing, last = computing + clock() - last, clock()
            state[name].copy_(tensor)
            copying, last = copying + clock() - last, clock()
        yield {
            "what": f"alpha {alpha} read",
            "s": computing + copying,
            "computing": computing,
            "copying": copying,
        }
    for place, needed in (
        (("on the GPU", 0), ("in main memory", 1 << 50)) if GPU else (("in main memory", 0),)
    ):
        parents, began = None, clock()
        parents = in_place.moved(None, pair.at(1.0).streamed, state, needed, again=True)
        if parents is None or (GPU and next(iter(parents.theta1.values())).is_cuda == bool(needed)):
            yield {"what": f"both models {place}", "skipped": "no room"}
            continue
        yield {"what": f"both models read, kept {place}", "s": clock() - began}
        for alpha in ALPHAS:
            began = clock()
            parents = in_place.moved(parents, pair.at(alpha).streamed, state, needed, again=True)
            taken = clock() - began
            yield {"what": f"alpha {alpha} in place", "s": taken, "differ": different(pair, alpha, state)}
    del state, parents
    yield from generation(pair, loaded)


def formula() -> int:
    """Count elements that differ from the CPU's, of 120 million in three types and ten alphas."""
    from expoflow.extrapolation.arithmetic import by_torch, theta2

    count, differ = 4_000_000 if GPU else 40_000, 0
    random = torch.Generator().manual_seed(0)
    for dtype, bits in (
        (torch.bfloat16, torch.int16),
        (torch.float16, torch.int16),
        (torch.float32, torch.int32),
    ):
        theta0 = (torch.randn(count, generator=random) * 0.02).to(dtype)
        theta1 = (theta0.float() + torch.randn(count, generator=random) * 2e-3).to(dtype)
        theta0[:1000], theta1[:1000] = (
            theta1[1000:2000],
            theta1[1000:2000],
        )  # equal elements, and zeros with a sign
        theta0[:10] = theta1[:10] = -0.0
        small = torch.finfo(dtype).tiny  # half of the results are subnormal
        theta0[2000:3000] *= small
        theta1[2000:3000] *= small
        for alpha in (0.1, 0.3, 0.5, 1.0, 1.7, 8.0, -0.2, -0.5, -0.7, -1.5):
            right, found = torch.empty_like(theta1), torch.empty_like(theta1, device=DEVICE)
            theta2(right, theta1, theta0, alpha)
            by_torch(found, theta1.to(DEVICE), theta0.to(DEVICE), alpha)
            differ += int((found.cpu().view(bits) != right.view(bits)).sum())
    return differ


def different(pair: Pair, alpha: float, state: dict[str, torch.Tensor]) -> int:
    """Count the elements of all tensors that differ in any bit from what the CPU computes.

    A processor that is slow in bfloat16 has the same numbers in float32.
    """
    bits = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
    differ = 0
    for name, tensor in tensors(pair.sft, pair.aligned, alpha):
        found = state[name]
        right = tensor.to(DEVICE, found.dtype)  # exact
        differ += int((found.view(bits[found.dtype]) != right.view(bits[found.dtype])).sum())
    return differ


def generation(pair: Pair, loaded) -> Iterator[Line]:
    """Measure the tokens per second of sampling, with batches of three sizes."""
    from expoflow.engines import transformers

    length, config = (128, GenerateConfig(max_tokens=128)) if GPU else (8, GenerateConfig(max_tokens=8))
    random = torch.Generator().manual_seed(0)
    list(
        loaded.generate([Request([1] * length, 0)], GenerateConfig(max_tokens=4))
    )  # the first call does extra work
    for budget in (8192, 16384, 32768) if GPU else (64, 128, 256):
        transformers.BATCH_TOKENS = budget
        rows = min(budget, loaded.room) // (length + config.max_tokens)
        if not rows:
            yield {"what": f"generation, {budget} tokens at a time", "skipped": "no room"}
            continue
        ids = torch.randint(10, SIZES[pair.size][3], (rows, length), generator=random).tolist()
        requests = [Request(row, seed) for seed, row in enumerate(ids)]
        began = clock()
        tokens = sum(each.tokens for step in loaded.generate(requests, config) for _, each in step)
        yield {"what": f"generation, {budget} tokens at a time", "tokens/s": tokens / (clock() - began)}


def scoring(pair: Pair) -> Iterator[Line]:
    """Measure a classifier of the same size: with a mask, without, and in the authors' pipeline."""
    from expoflow.miniature.tokenizer import tokenizer
    from expoflow.scoring import rewards
    from transformers import LlamaConfig, LlamaForSequenceClassification, pipeline

    hidden, inner, layers, vocab, _ = SIZES[pair.size]
    folder, words = pair.classifier, tokenizer()
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_labels=1,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 256, pad_token_id=words.pad_token_id,
        max_position_embeddings=4096, dtype=torch.bfloat16,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        LlamaForSequenceClassification(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    words.save_pretrained(folder)
    if GPU:
        torch.cuda.empty_cache()
    scorer = rewards.load(Model(folder=folder))
    random = torch.Generator().manual_seed(0)
    lengths = (
        (5.5 + 0.96 * torch.randn(200 if GPU else 10, generator=random)).exp().clamp(5, 2000).int().tolist()
    )
    known = [word for word in words.get_vocab() if word.isalpha()]
    texts = [" ".join(known[at % len(known)] for at in range(length)) for length in lengths]
    rows = [words(text)["input_ids"] for text in texts]
    count = sum(map(len, rows))
    list(scorer.logits(rows[:8]))  # once, since the first call does extra work
    began = clock()
    logits = dict(each for batch in scorer.logits(rows) for each in batch)
    yield {"what": "scores as a run computes them", "tokens/s": count / (clock() - began)}
    for scorer.masks in (True, False):
        began = clock()
        found = dict(each for batch in scorer.logits(rows) for each in batch)
        away = max(abs(found[at] - logits[at]) for at in found)
        name = "with a mask" if scorer.masks else "without a mask"
        yield {"what": f"scores {name}", "tokens/s": count / (clock() - began), "apart": away}
    some = texts[: 64 if GPU else 10]
    theirs = pipeline(
        "text-classification",
        model=scorer.model,
        tokenizer=words,
        function_to_apply="none",
        device=scorer.model.device,
    )
    began = clock()
    told = theirs(some, batch_size=8)
    rate = sum(map(len, rows[: len(some)])) / (clock() - began)
    away = max(abs(each["score"] - logits[at]) for at, each in enumerate(told))
    yield {"what": "scores by a pipeline, batches of 8", "tokens/s": rate, "apart": away}


def closing(pair: Pair) -> Iterator[Line]:
    """Measure the memory in use after an engine was closed, three times."""
    from expoflow.engines.transformers import TransformersEngine

    if GPU:
        torch.zeros(1, device=DEVICE)
    first = free()
    for _ in range(3):
        loaded = TransformersEngine(pair.at(0.3))
        loaded.move(pair.at(0.4))
        held = first - free()
        loaded.close()
        del loaded
        yield {"what": "an engine closed", "held GB": held, "left GB": first - free()}


def vllm(pair: Pair) -> Iterator[Line]:
    """Measure the same with vLLM, if it is installed and a GPU exists."""
    if not (GPU and importlib.util.find_spec("vllm")):
        yield {"what": "vLLM", "skipped": "no GPU" if not GPU else "not installed"}
        return
    from expoflow.engines.vllm import VllmEngine

    began = clock()
    loaded = VllmEngine(pair.at(1.0))
    yield {"what": "engine started (vLLM)", "s": clock() - began}
    for alpha in ALPHAS:
        began = clock()
        loaded.move(pair.at(alpha))
        yield {"what": f"vLLM moved to alpha {alpha}", "s": clock() - began}
    ids = torch.randint(
        10, SIZES[pair.size][3], (512, 128), generator=torch.Generator().manual_seed(0)
    ).tolist()
    requests, began = [Request(row, seed) for seed, row in enumerate(ids)], clock()
    steps = loaded.generate(requests, GenerateConfig(max_tokens=128))
    tokens = sum(each.tokens for step in steps for _, each in step)
    yield {"what": "generation by vLLM, 512 prompts", "tokens/s": tokens / (clock() - began)}
    loaded.close()


# With the seconds that must be left for a step to start.
STEPS: dict[str, tuple[Callable[[Pair], Iterator[Line]], int]] = {
    "writing": (writing, 20),
    "streaming": (streaming, 20),
    "engine": (engine, 60),
    "scoring": (scoring, 60),
    "closing": (closing, 40),
    "vllm": (vllm, 120),
}


def wrong(line: Line) -> str | None:
    """Return the problems of this machine that a line shows."""
    if line.get("error"):
        return f"{line['step']}: {line['error']}"
    if line.get("right") is False:
        return "torch rounds a product before it adds: alphas are read, not taken in place"
    if line.get("differ"):
        return f"{line['what']}: {line['differ']} elements have other bits than the CPU's"
    if line.get("left GB", 0) > 1:
        return f"{line['what']}: {line['left GB']:.1f} GB of the GPU were not given back"
    if line.get("apart", 0) > 0.5:  # rounding in bfloat16 gives a tenth of this, a wrong mask twice as much
        return f"{line['what']}: scores differ by {line['apart']:.2f}"
    return None


def told(line: Line) -> str:
    if "skipped" in line or "error" in line:
        return str(line.get("error") or f"skipped: {line['skipped']}")
    figures = {name: value for name, value in line.items() if name not in ("step", "what")}
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )


def run(step: str, work: Path, size: str, seconds: float) -> Line:
    """Run a step in its own process, which writes lines to the file; return a line about it."""
    command, parent = (
        [sys.executable, __file__, "--work", str(work), "--size", size, "--step", step],
        os.getpid(),
    )
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=lambda: child.end_with(parent))
    try:
        process.wait(max(0, seconds))
    except subprocess.TimeoutExpired:
        return {"skipped": f"{NO_TIME}: cut off after {seconds:.0f} s"}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and the processes that it started
        process.wait()
    return (
        {"error": f"ended with code {process.returncode}; its error stands above"}
        if process.returncode
        else {}
    )


def add(work: Path, line: Line) -> None:
    with (work / "gpu.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def whole(work: Path, until: float) -> int:
    """Run the steps that fit before `until`, and report whether this machine is fine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so the running step ends too
    (work / "gpu.jsonl").unlink(missing_ok=True)
    remove_models(work)
    size = "tiny"
    if GPU:
        room = shutil.disk_usage(work).free
        if room < LEAST:
            print(
                f"{work} has {room / 1e9:.1f} GB free, {LEAST / 1e9:.0f} GB are needed; name another folder",
                file=sys.stderr,
            )
            return 1
        size = "6.7B" if torch.cuda.mem_get_info()[0] > MEMORY and room > DISK else "1.1B"
    name = torch.cuda.get_device_name() if GPU else "no GPU was found: a dry form on the CPU, in tiny"
    add(
        work,
        {"step": "machine", "what": name, "torch": torch.__version__, "model": size, "cores": os.cpu_count()},
    )
    try:
        for step, (_, least) in STEPS.items():
            left = until - CLOSING - time.time()
            enough = left >= least * (GPU or 0.1)
            if outcome := run(step, work, size, left) if enough else {"skipped": NO_TIME}:
                add(work, {"step": step, "what": step, **outcome})
    finally:
        remove_models(work)
    return say(work)


def remove_models(work: Path) -> None:
    shutil.rmtree(work / OWN / "models", ignore_errors=True)


def say(work: Path) -> int:
    """Print the table, and whether this machine is fine; return 1 if it is not."""
    lines = [json.loads(line) for line in (work / "gpu.jsonl").read_text().splitlines()]
    width = max(len(str(line["what"])) for line in lines)
    print()
    for line in lines:
        print(f"{line['step']:9}  {line['what']:{width}}  {told(line)}")
    problems = list(filter(None, map(wrong, lines)))
    missing = [line["what"] for line in lines if str(line.get("skipped")).startswith(NO_TIME)]
    print("\n" + "\n".join(f"wrong: {problem}" for problem in problems) if problems else "")
    if missing:
        print(f"not measured, for lack of time: {', '.join(missing)}")
    if not GPU:
        print("no GPU was found: every step ran on the CPU, in tiny, and its figures say nothing of a GPU")
    elif problems:
        print("this machine is not fine: see above")
    else:
        print(f"this machine is fine{', as far as it was measured' if missing else ''}")
    return 1 if problems else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for models and gpu.jsonl")
    parser.add_argument(
        "--until", type=float, default=time.time() + 600, help="when it must be over (date +%%s)"
    )
    parser.add_argument("--size", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.step:
        sys.exit(whole(given.work, given.until))
    for line in STEPS[given.step][0](Pair(given.work, given.size)):
        add(given.work, {"step": given.step, **line})
        print(f"{given.step}: {line['what']}: {told(line)}", flush=True)


if __name__ == "__main__":
    main()
