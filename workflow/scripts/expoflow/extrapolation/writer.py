"""Write weight files: theta1's shards with new values.

Threads write each byte once, at its place.
"""

import mmap
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from expoflow.checkpoints.checkpoint import INDEX, SINGLE, Checkpoint
from expoflow.checkpoints.header import SIZES, Shard, Tensor, relaid
from expoflow.extrapolation import elements
from expoflow.extrapolation.effect import Effects, summarise, tensor_effect
from expoflow.extrapolation.kernel import TOGETHER
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import Pair, PairedTensor
from expoflow.files.records import write_json
from expoflow.files.uncached_output import PAGE, Output
from expoflow.system.progress import report

BLOCK = 1 << 22  # bytes a worker computes at once: long steps, so threads seldom wait
SPAN = 1 << 23  # bytes of a file that a worker takes at once

Progress = Callable[[int, int], None]


class StoppedError(Exception):
    """Another thread failed, so this one stopped."""


@dataclass(frozen=True)
class ShardLayout:
    """The layout of one output file: header bytes, and offset and type by tensor name."""

    name: str
    header: bytes
    size: int
    places: dict[str, Tensor]

    @cached_property
    def order(self) -> list[Tensor]:
        """The tensors that have bytes, in their order in the file."""
        return sorted((each for each in self.places.values() if each.elements), key=lambda each: each.start)

    def between(self, start: int, stop: int) -> Iterator[Tensor]:
        """The tensors that have bytes in [start, stop) of the file."""
        first = bisect_right(self.order, start, key=lambda each: each.stop)
        for place in self.order[first:]:
            if place.start >= stop:
                return
            yield place


def shard_layouts(pair: Pair, options: Options) -> list[ShardLayout]:
    """Return the layout of each output file.

    The headers are theta1's own if its types are kept; otherwise they have the same order and the
    output's types.
    """
    pieces: dict[str, list[PairedTensor]] = {}
    for part in pair.parts:
        if part.whole:
            pieces.setdefault(part.name, []).append(part)
    return [_shard_layout(shard, options, pieces) for shard in pair.aligned.shards]


def _shard_layout(shard: Shard, options: Options, pieces: Mapping[str, list[PairedTensor]]) -> ShardLayout:
    if options.dtype != "keep":
        shard = relaid(shard, lambda tensor: replace(tensor, dtype=options.stored_type(tensor)))
    places = {}
    for tensor in shard.tensors:
        for part in pieces.get(tensor.name, ()):
            size = SIZES[tensor.dtype]
            start = tensor.start + part.first * size
            stop = start + part.theta1.elements * size
            places[part.theta1.name] = replace(part.theta1, dtype=tensor.dtype, start=start, stop=stop)
        if tensor.name not in pieces:
            places[tensor.name] = tensor
    return ShardLayout(shard.path.name, shard.raw_header(), shard.size, places)


def write_index(aligned: Checkpoint, plans: list[ShardLayout], folder: Path) -> None:
    """Write theta1's index with a corrected total_size.

    A single model.safetensors gets no index, because it would be stale.
    """
    index = aligned.index
    if not index or [each.name for each in plans] == [SINGLE]:
        return
    places = [tensor for each in plans for tensor in each.places.values()]
    given = index.get("metadata")  # absent or null in files of some converters
    index["metadata"] = {
        **(given if isinstance(given, dict) else {}),
        "total_size": sum(tensor.stop - tensor.start for tensor in places),
    }
    write_json(folder / INDEX, index)


class Writer:
    """Writes the weight files of several alphas in one pass over both inputs.

    `folders` has the output folder by alpha. Call `close` only after the threads of `run`'s pool
    are done: they write through its open files.
    """

    def __init__(
        self, pair: Pair, folders: Mapping[float, Path], options: Options, progress: Progress | None = None
    ):
        self.pair, self.folders, self.options = pair, folders, options
        self.plans = shard_layouts(pair, options)
        self.total = len(folders) * sum(each.size for each in self.plans)
        self.done, self.progress = 0, progress
        self.lock, self.stop, self.own = threading.Lock(), threading.Event(), threading.local()
        self.parts = {part.theta1.name: part for part in pair.parts}
        self.outputs: list[Output] = []

    def run(self, pool: Executor) -> Effects:
        """Write all files to disk and return the effect of each alpha; raise the first error."""
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
        for output in self.outputs:
            output.close()

    def _write_shard(
        self, pool: Executor, plan: ShardLayout, alphas: list[float], measured: dict[str, Future]
    ) -> list[Future]:
        files = {alpha: Output(folder / plan.name, plan.size) for alpha, folder in self.folders.items()}
        self.outputs += files.values()
        spans = []
        for start in range(0, plan.size, SPAN):
            stop = min(start + SPAN, plan.size)
            spans.append(pool.submit(self._span, plan, start, stop, files))
            for place in plan.between(start, stop):
                part = self.parts[place.name]
                if place.stop <= stop and part.shared:  # still in memory, so nothing is read twice
                    measured[place.name] = pool.submit(tensor_effect, self.pair, part, alphas, self.options)
        for span in spans:
            span.result()
        return [pool.submit(output.finish) for output in files.values()]

    def _span(self, plan: ShardLayout, first: int, last: int, files: dict[float, Output]) -> None:
        for place in plan.between(first, last):
            self._fetch(self.parts[place.name], *_elements(place, first, last))
        alphas = list(files)
        for number in range(0, len(alphas), TOGETHER):
            self._together(
                plan, first, last, {alpha: files[alpha] for alpha in alphas[number : number + TOGETHER]}
            )
        self._report(len(files) * (last - first))

    def _together(self, plan: ShardLayout, first: int, last: int, files: dict[float, Output]) -> None:
        """Compute and write bytes [first, last) of the files of some alphas."""
        size = BLOCK // len(files) // PAGE * PAGE
        blocks = self._memory()[: len(files) * size].reshape(len(files), size)
        for start in range(first, last, size):
            stop = min(start + size, last)
            if self.stop.is_set():
                raise StoppedError
            self._fill(blocks[:, : stop - start], plan, start, stop, list(files))
            # A direct write needs whole pages; `finish` cuts off what lies beyond the file's end.
            length = -(-(stop - start) // PAGE) * PAGE if stop == plan.size else stop - start
            for block, output in zip(blocks, files.values(), strict=True):
                output.write(block[:length], start)

    def _memory(self) -> np.ndarray:
        """Return this thread's block of bytes, aligned to a page."""
        if not hasattr(self.own, "memory"):
            self.own.memory = np.frombuffer(mmap.mmap(-1, BLOCK), np.uint8)
        return self.own.memory

    def _fetch(self, part: PairedTensor, first: int, last: int) -> None:
        self.pair.aligned.fetch(part.theta1.name, first, last)
        if part.theta0:
            self.pair.sft.fetch(part.theta0.name, first, min(last, part.theta0.elements))

    def _fill(
        self, blocks: np.ndarray, plan: ShardLayout, start: int, stop: int, alphas: list[float]
    ) -> None:
        """Compute bytes [start, stop) of the outputs of the alphas, one in each row of `blocks`."""
        if header := plan.header[start:stop]:
            blocks[:, : len(header)] = np.frombuffer(header, np.uint8)
        for place in plan.between(start, stop):
            size, part = SIZES[place.dtype], self.parts[place.name]
            first, last = _elements(place, start, stop)
            at = place.start + first * size - start  # < 0 if the border cuts an element
            until = at + (last - first) * size
            inside = slice(max(at, 0), min(until, stop - start))
            if inside == slice(at, until):
                elements.write_elements(blocks[:, inside], self.pair, part, first, last, alphas, self.options)
            else:
                outs = np.empty((len(alphas), until - at), np.uint8)
                elements.write_elements(outs, self.pair, part, first, last, alphas, self.options)
                blocks[:, inside] = outs[:, inside.start - at : inside.stop - at]

    def _report(self, count: int) -> None:
        with self.lock:
            self.done += count
            report(self.done, self.total, "bytes")
            if self.progress:
                self.progress(self.done, self.total)


def _elements(place: Tensor, start: int, stop: int) -> tuple[int, int]:
    """Return the elements [first, last) of a tensor with bytes in [start, stop) of the file."""
    size = SIZES[place.dtype]
    first = max(0, start - place.start) // size
    return first, min(place.elements, -((place.start - stop) // size))
