"""Output weight files: theta1's shards with other values, each byte written once, in place, by threads."""

import json
import os
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from expoflow.checkpoint import INDEX, SINGLE, Checkpoint, read_json_file
from expoflow.effect import Effects, measure, summarise
from expoflow.header import FLOATS, SIZES, Shard, Tensor
from expoflow.options import Options
from expoflow.preflight import Pair, Part
from expoflow.records import write_json

CHUNK = 1 << 18  # elements computed at once: both inputs and the output of one chunk fit a core's L2 cache
SPAN = 1 << 22  # elements a worker takes at once

Progress = Callable[[int, int], None]


class StoppedError(Exception):
    """Another thread failed; this one left its work."""


@dataclass(frozen=True)
class Plan:
    """Where everything goes in one output file: header bytes, and offset and type by tensor name."""

    name: str
    header: bytes
    size: int
    places: dict[str, Tensor]


def plan(shard: Shard, options: Options) -> Plan:
    """theta1's own header where its types are kept, else one of the same order with the output's types."""
    if options.dtype == "keep":
        return Plan(
            shard.path.name, shard.raw_header(), shard.size, {each.name: each for each in shard.tensors}
        )
    places, at = {}, 0
    for tensor in sorted(shard.tensors, key=lambda tensor: tensor.start):
        kind = options.stored_type(tensor)
        stop = at + tensor.elements * SIZES[kind]
        places[tensor.name] = Tensor(tensor.name, kind, tensor.shape, at, stop)
        at = stop
    header = {"__metadata__": shard.metadata} if shard.metadata else {}
    for tensor in shard.tensors:
        place = places[tensor.name]
        header[place.name] = {
            "dtype": place.dtype,
            "shape": place.shape,
            "data_offsets": [place.start, place.stop],
        }
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    data = 8 + len(text)
    moved = {
        name: replace(each, start=each.start + data, stop=each.stop + data) for name, each in places.items()
    }
    return Plan(shard.path.name, struct.pack("<Q", len(text)) + text, data + at, moved)


def write_index(aligned: Checkpoint, plans: list[Plan], folder: Path) -> None:
    """theta1's index, its total_size corrected; none for model.safetensors, beside which it would be stale."""
    if [each.name for each in plans] == [SINGLE]:
        return
    index = read_json_file(aligned.folder / INDEX)
    places = [tensor for each in plans for tensor in each.places.values()]
    index["metadata"] = {
        **index.get("metadata", {}),
        "total_size": sum(tensor.stop - tensor.start for tensor in places),
    }
    write_json(folder / INDEX, index)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """pwrite until everything is written: one call may write less, and at most 2 GiB."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


class Writer:
    """Writes the weight files of several alphas in one pass over both inputs.

    `folders` gives the output folder by alpha. `close` it only when the threads of `run`'s pool are done:
    they write through its open files.
    """

    def __init__(
        self, pair: Pair, folders: Mapping[float, Path], options: Options, progress: Progress | None = None
    ):
        self.pair, self.folders, self.options = pair, folders, options
        self.plans = [plan(shard, options) for shard in pair.aligned.shards]
        self.total = len(folders) * sum(each.size for each in self.plans)
        self.done, self.progress = 0, progress
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.parts = {part.theta1.name: part for part in pair.parts}
        self.open: set[int] = set()

    def run(self, pool: Executor) -> Effects:
        """Write all files to disk and tell the effect of each alpha; needs torch. Raises the first error."""
        alphas, measured, finishing = list(self.folders), {}, []
        try:
            for each in self.plans:
                finishing += self._write_shard(pool, each, alphas, measured)
            for future in finishing:
                future.result()
            for folder in self.folders.values():
                write_index(self.pair.aligned, self.plans, folder)
            pieces = {name: future.result() for name, future in measured.items()}
            return summarise(self.pair, alphas, self.options, pieces)
        except BaseException:
            self.stop.set()
            raise

    def close(self) -> None:
        """Close what an error left open."""
        while self.open:
            os.close(self.open.pop())

    def _write_shard(
        self, pool: Executor, plan: Plan, alphas: list[float], measured: dict[str, Future]
    ) -> list[Future]:
        files = {}
        for alpha, folder in self.folders.items():
            files[alpha] = os.open(folder / plan.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            self.open.add(files[alpha])
            os.ftruncate(files[alpha], plan.size)
            write_all(files[alpha], memoryview(plan.header), 0)
        spans = []
        for place in sorted(plan.places.values(), key=lambda place: place.start):
            part = self.parts[place.name]
            for start in range(0, place.elements, SPAN):
                spans.append(pool.submit(self._span, part, place, start, files))
            if part.shared:  # while the tensor is still in memory, so that nothing is read twice
                measured[place.name] = pool.submit(measure, self.pair, part, alphas, self.options)
        for span in spans:
            span.result()
        self._report(len(files) * len(plan.header))
        return [pool.submit(self._finish, descriptor) for descriptor in files.values()]

    def _finish(self, descriptor: int) -> None:
        os.fsync(descriptor)
        self.open.remove(descriptor)
        os.close(descriptor)

    def _span(self, part: Part, place: Tensor, first: int, files: dict[float, int]) -> None:
        import torch

        from expoflow.arithmetic import TORCH, tensor_of, theta2

        last = min(first + SPAN, part.theta1.elements)
        size = SIZES[place.dtype]
        self.pair.aligned.fetch(part.theta1.name, first, last)
        if part.theta0:
            self.pair.sft.fetch(part.theta0.name, first, min(last, part.theta0.elements))
        view1 = self.pair.aligned.view(part.theta1.name)
        if place.dtype not in FLOATS.values():
            for descriptor in files.values():
                write_all(descriptor, view1[first * size : last * size], place.start + first * size)
            self._report(len(files) * (last - first) * size)
            return
        theta1 = tensor_of(view1, part.theta1.dtype)
        theta0 = tensor_of(self.pair.sft.view(part.theta0.name), part.theta0.dtype) if part.theta0 else theta1
        buffer = torch.empty(min(CHUNK, last - first), dtype=TORCH[place.dtype])
        data = memoryview(buffer.view(torch.uint8).numpy())
        steps = [(self.options.alpha_of(part.theta1.name, alpha), files[alpha]) for alpha in files]
        borders = sorted(
            {*range(first, last, CHUNK), *({part.shared} if first < part.shared < last else ()), last}
        )
        for start, stop in pairwise(borders):
            if self.stop.is_set():
                raise StoppedError
            ours, theirs, out = theta1[start:stop], theta0[start:stop], buffer[: stop - start]
            for step, descriptor in steps:
                if start >= part.shared:
                    step, theirs = 0.0, ours
                theta2(out, ours, theirs, step, compute=self.options.compute, overflow=self.options.overflow,
                       name=part.theta1.name)  # fmt: skip
                write_all(descriptor, data[: (stop - start) * size], place.start + start * size)
        self._report(len(files) * (last - first) * size)

    def _report(self, count: int) -> None:
        with self.lock:
            self.done += count
            if self.progress:
                self.progress(self.done, self.total)
