"""Estimates of the time that a config's responses and rewards take.

They come from this machine's earlier runs, or else from a simple calculation. For every token of
each response, a GPU reads all weights, and the keys and values of all responses, from its memory.
So memory bandwidth and arithmetic limit its speed. The figures of GPUs are from NVIDIA's data
sheets (dense 16-bit tensor arithmetic, without sparsity); engines reach roughly half of them. A CPU
is assumed to reach 20 GFLOP/s per core. None of this is measured. After a run the store keeps the
machine's own speed, which is used for later runs that are not much larger: a few responses say
little about large batches, or about the time that loading a model takes.
"""

import math
import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from expoflow import store
from expoflow.benchmarks import bill
from expoflow.config import Config
from expoflow.config.base import REFERENCE_ALPHAS
from expoflow.config.benchmarks import SECTIONS
from expoflow.dag.resources import Needs, size
from expoflow.engines.model import foreseen
from expoflow.errors import DataError, ExpoflowError
from expoflow.files.records import Record, read_jsonl, write_jsonl
from expoflow.paths import RESULTS, Results
from expoflow.project.estimate import GB, OVERHEAD, PROMPT_TOKENS, Estimate, benchmark_responses
from expoflow.results import Generation
from expoflow.selection.criteria import scored_under
from expoflow.system import gpus
from expoflow.system.gpu_memory import loaded

REACHED = 0.5  # share of a GPU's bandwidth and arithmetic
BATCH = 256  # responses at a time: vLLM's default
CORE = 20e9  # floating-point operations of a CPU core per second
# A speed is used if its model's size is within this factor, and the run at most this many times as
# large.
ALIKE = 4
KEPT = 200  # speeds
RESUMED = "responses are there already, from a run that was cut off"  # from the log of `engines.generate`


@dataclass(frozen=True)
class Card:
    """A GPU: bytes of memory, bytes read per second, 16-bit operations per second."""

    name: str
    memory: float
    bandwidth: float
    operations: float


# From NVIDIA's data sheets. The first entry is used that occurs in the driver's name for the GPU
# and has its memory. Laptop GPUs and virtual parts of a GPU share the name of the whole one.
CARDS = (
    Card("H200 NVL", 141 * GB, 4.8e12, 836e12),
    Card("H200", 141 * GB, 4.8e12, 989e12),
    Card("H100 PCIe", 80 * GB, 2.0e12, 756e12),
    Card("H100 NVL", 94 * GB, 3.9e12, 835e12),
    Card("H100", 80 * GB, 3.35e12, 989e12),
    Card("A100-SXM4-40GB", 40 * GB, 1.555e12, 312e12),
    Card("A100-PCIE-40GB", 40 * GB, 1.555e12, 312e12),
    Card("A100", 80 * GB, 1.935e12, 312e12),
    Card("L40S", 48 * GB, 864e9, 362e12),
    Card("L40", 48 * GB, 864e9, 181e12),
    Card("A40", 48 * GB, 696e9, 150e12),
    Card("A10", 24 * GB, 600e9, 125e12),
    Card("A10G", 24 * GB, 600e9, 70e12),
    Card("L4", 24 * GB, 300e9, 121e12),
    Card("RTX 4090", 24 * GB, 1.008e12, 165e12),
    Card("RTX 3090", 24 * GB, 936e9, 71e12),
    Card("V100-PCIE-16GB", 16 * GB, 900e9, 112e12),
    Card("V100-PCIE-32GB", 32 * GB, 900e9, 112e12),
    Card("V100-SXM2-16GB", 16 * GB, 900e9, 125e12),
    Card("V100", 32 * GB, 900e9, 125e12),
    Card("T4", 16 * GB, 320e9, 65e12),
)
USUAL = next(card for card in CARDS if card.name == "A100")  # if a cluster's GPUs are unknown


class Speed(Record):
    """A line of speeds.jsonl: a pair's sweep on `device`, with `gpus` GPUs per model, or a CPU.

    `weights` are the bytes of the model. `seconds` is the time during which jobs of the sweep were
    at work, times the number of models that this machine's GPUs hold at once.
    """

    device: str
    engine: str
    gpus: int
    weights: int
    tokens: int
    responses: int
    seconds: float


@dataclass(frozen=True)
class Work:
    """The remaining work of a model in jobs on `gpus` GPUs.

    It has `responses`, and `written` and `read` are the maximum numbers of tokens.
    """

    model: str
    gpus: int
    written: int = 0
    read: int = 0
    responses: int = 0
    engine: str = ""
    """The engine that generates, as the config names it."""


def place() -> Path:
    """Return the file with the speeds of this machine's earlier runs."""
    return store.root() / "speeds.jsonl"


def device(local: bool) -> str:
    """Return the first GPU's name, or the CPU's type and number of cores; empty if unknown."""
    if not local:
        return ""
    with suppress(ExpoflowError):
        if found := gpus.memory(gpus.gpus()[:1]):
            return found[0][2].partition(" (GPU ")[0]
        if not gpus.none():
            return ""
    return f"{platform.machine()} CPU, {_cores()} cores"


def remember(config: Config, since: float, local: bool, results: Results = RESULTS) -> None:
    """Keep the speed of each pair's sweep if this machine made all its responses after `since`.

    `since` is in epoch seconds. Nothing is kept from a rehearsal.
    """
    found = [*_speeds(config, since, results)] if local and not config.limit and device(local) else []
    if found:
        with suppress(OSError, DataError):
            old = read_jsonl(place(), Speed) if place().exists() else []
            write_jsonl(place(), [*old, *found][-KEPT:])


def _speeds(config: Config, since: float, results: Results) -> Iterator[Speed]:
    needs = Needs(config, lambda model: size(config.models[model], str(results.manifest(model))))
    for name, pair in config.pairs.items():
        prompts, rows, times = config.section(name, "generate").prompts, [], []
        for alpha in pair.grid():
            path = results.generations(name, alpha, prompts)
            with suppress(OSError, DataError, ValueError, KeyError):
                end = path.stat().st_mtime
                times_of = results.generation_times(name, alpha, prompts)
                said = times_of.with_suffix(".log").read_text("utf-8")
                if alpha in REFERENCE_ALPHAS or end < since or RESUMED in said:
                    continue  # responses of reference alphas may come from the store
                head, first = (line.split("\t") for line in times_of.read_text("utf-8").splitlines()[:2])
                rows += read_jsonl(path, Generation)
                times.append((end - float(dict(zip(head, first, strict=True))["s"]), end))
        seconds, each = _together(times), needs.gpus(pair.aligned)
        if rows and seconds > 1:
            yield Speed(
                device=device(True),
                engine=rows[0].engine,
                gpus=each,
                weights=needs.weights(pair.aligned),
                tokens=sum(row.response_tokens for row in rows),
                responses=len(rows),
                seconds=seconds * max(1, len(gpus.gpus()) // max(1, each)),
            )


def _together(times: list[tuple[float, float]]) -> float:
    """Return the seconds that the (begin, end) intervals cover.

    Their lengths must not be added up, since jobs wait for each other's engine or share cores.
    """
    total, until = 0.0, float("-inf")
    for begin, end in sorted(times):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def work(config: Config, made: Estimate, results: Results = RESULTS) -> Iterator[Work]:
    """Yield the responses that are still to be written and scored.

    Responses that pairs with a common parent share are counted once.
    """
    seen: set[tuple[str, str]] = set()
    unfinished = bill.unfinished(config, results)
    for name, pair in config.pairs.items():
        generate = config.section(name, "generate")
        each = made.prompts[generate.prompts][0] * generate.samples
        shared = {"-1": (pair.sft, pair.aligned), "0": (pair.aligned, "")}
        grid = pair.grid()
        new = [
            alpha
            for alpha in grid
            if not results.generations(name, alpha, generate.prompts).exists()
            and shared.get(alpha) not in seen
        ]
        seen |= {*shared.values()}
        unscored = [alpha for alpha in grid if not results.rewards(name, alpha, generate.prompts).exists()]
        responses = len(new) * each
        written, read = (
            responses * generate.max_tokens,
            len(unscored) * each * (PROMPT_TOKENS + generate.max_tokens),
        )
        for benchmark, count, limit in benchmark_responses(config, name, made):
            asked = unfinished.get((name, benchmark), 0) * count
            responses += asked
            written += asked * limit
            read += asked * (PROMPT_TOKENS + limit) * ("score" in SECTIONS[benchmark].TASKS)
        yield Work(
            pair.aligned,
            made.needs.gpus(pair.aligned),
            written,
            responses * PROMPT_TOKENS,
            responses,
            generate.engine,
        )
        if config.reward_model:
            yield Work(config.reward_model, made.needs.gpus(config.reward_model), read=read)


def lines(config: Config, made: Estimate, local: bool, results: Results = RESULTS) -> list[str]:
    """Return the time that the rest of a run takes if no response ends early, and its sources."""
    on, left = device(local), [each for each in work(config, made, results) if each.written or each.read]
    if not left or all(made.needs.miniature(each.model) for each in left):
        return []
    card = _card(on, _memory()) if on else USUAL
    if card is None and "CPU" not in on:
        return [f"time: not known for {on}; the first run here measures it"]
    known = _known(on)
    hours, sources = 0.0, set()
    for each in left:
        seconds, source = _seconds(config, made, each, card, known)
        hours += seconds / 3600 * max(1, each.gpus)
        sources.add(source)
    unit = "GPU " if card else ""
    where = on or "as on A100s of 80 GB: which ones the jobs get is not known"
    by = " and ".join(sorted(sources))
    engines = [config.section(name, "generate").engine for name in config.pairs]
    if card and "estimated" in sources and "transformers" in map(foreseen, engines):
        by += " for vLLM (transformers takes many times as long)"
    text = f"time: {_time(hours, unit)} of generation and scoring if no response ends early ({by}, {where})"
    if card and on and (count := len(gpus.gpus())) > 1:
        text += f", {_time(hours / count)} on the {count} GPUs here"
    return [f"{text}; {_not_counted(config, results)} come on top"]


def _not_counted(config: Config, results: Results) -> str:
    """Return the other steps that take time, or may do so."""
    pairs = {name: config.section(name, "select") for name in config.pairs}
    likelihoods = any(scored_under(section) for section in pairs.values())
    asked = {
        benchmark
        for pair, benchmark in bill.unfinished(config, results)
        if benchmark in config.section(pair, "benchmarks").harnesses()
    }
    return ", ".join(["trainings", *["likelihoods"] * likelihoods, *sorted(asked), "downloads and judges"])


def _seconds(
    config: Config, made: Estimate, each: Work, card: Card | None, known: list[Speed]
) -> tuple[float, str]:
    """Return how long a model takes on its GPUs, and the source of that figure."""
    weights = made.needs.weights(each.model)
    engine = config.engine_of(each.model)
    alike = [
        speed
        for speed in known
        if weights and 1 / ALIKE <= speed.weights / weights <= ALIKE and speed.gpus == each.gpus
        if speed.engine == foreseen(each.engine) and each.responses <= ALIKE * speed.responses
    ]
    if alike and each.written:
        nearest = alike[-10:]
        seconds = sum(speed.seconds * weights / speed.weights for speed in nearest)
        return each.written * seconds / sum(speed.tokens for speed in nearest), "by earlier runs here"
    operations = max(weights, 1)  # 2 operations per parameter of 2 bytes
    if card is None:
        return (each.written + each.read) * operations / (CORE * _cores()), "estimated"
    count, held = max(1, each.gpus), loaded(weights, engine)
    arithmetic = REACHED * card.operations * count / operations
    if not each.written:
        return each.read / arithmetic, "estimated"
    length = PROMPT_TOKENS + max(config.section(pair, "generate").max_tokens for pair in config.pairs)
    row = made.models[each.model].cache * engine.cache() * engine.shortened(length)
    room = count * card.memory * engine.utilization() - held - OVERHEAD
    batch = max(1, min(engine.max_num_seqs or BATCH, room / row if row else BATCH))
    read = held + batch * row / 2  # a response is half as long on average while it is written
    rate = min(arithmetic, batch * REACHED * card.bandwidth * count / read)
    return each.written / rate + each.read / arithmetic, "estimated"


def _card(device: str, memory: float) -> Card | None:
    """Return the figures of a GPU, by its name and bytes of memory according to the driver."""
    named = (card for card in CARDS if re.search(rf"(?<![A-Za-z0-9]){card.name}(?![A-Za-z0-9])", device))
    return next((card for card in named if 0.9 < memory / card.memory < 1.15), None)


def _memory() -> float:
    """Return the bytes of memory of the first GPU according to the driver; 0 without one."""
    found = gpus.memory(gpus.gpus()[:1])
    return found[0][1] if found else 0


def _known(device: str) -> list[Speed]:
    """Return the speeds of this machine's earlier runs."""
    with suppress(OSError, DataError):
        return [speed for speed in read_jsonl(place(), Speed) if device and speed.device == device]
    return []


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _time(hours: float, unit: str = "") -> str:
    """Return `12 minutes` or `3.1 GPU hours`; minutes are rounded up."""
    if (minutes := math.ceil(60 * hours)) < 100:
        return f"{minutes} {unit}{'minute' if minutes == 1 else 'minutes'}"
    return f"{hours:.1f} {unit}hours" if hours < 10 else f"{hours:,.0f} {unit}hours"
