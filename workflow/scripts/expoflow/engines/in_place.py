"""Another alpha without reading: an engine keeps theta1 and theta0 as it has its weights, and writes theta2 over these.

Theta2 is made of the two each time, never of the weights that are there, and bit for bit as `extrapolation.arithmetic` makes
it. The two take twice the memory of the weights: on their GPU if there is room, else in main memory. A pair for which that
cannot be is read again at each move, as before.
"""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from expoflow.checkpoints.torch_types import TORCH
from expoflow.engines.ahead import tensors_for
from expoflow.engines.memory import allowed_memory, free_memory
from expoflow.extrapolation.arithmetic import exact, theta2
from expoflow.extrapolation.elements import need_torch
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import open_pair
from expoflow.extrapolation.streamed_checkpoint import Streamed

CHUNK = {"cpu": 1 << 20, "cuda": 1 << 22}  # elements that are computed at once
SCRATCH = 1 << 30  # bytes of a GPU that a chunk may need
SHARE = 4  # one of so many parts of the free main memory may be taken, for others load models too


@dataclass
class Parents:
    """theta1 and theta0 of the pair that `key` stands for, as stored, by the names of an engine's tensors, in one dimension each."""

    key: Any
    theta1: dict[str, Tensor] = field(default_factory=dict)
    theta0: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def write(self, live: Mapping[str, Tensor], alpha: float, options: Options) -> None:
        """Write theta2 into those tensors of `live` that were kept. Raises PairError as `arithmetic.theta2` does.

        A GPU without memory for a chunk raises torch.OutOfMemoryError; the weights are of no use then.
        """

        def write(chunk: tuple[str, Tensor, Tensor, Tensor]) -> None:
            name, out, *parents = chunk
            _compute(out, *parents, alpha, options, name)

        gpu, cpu = [], []
        for chunk in self._chunks(live):
            (cpu if chunk[1].device.type == "cpu" else gpu).append(chunk)
        for chunk in gpu:
            write(chunk)
        with ThreadPoolExecutor(options.workers()) as pool:
            list(pool.map(write, cpu))

    @torch.no_grad()
    def agrees(self, live: Mapping[str, Tensor], alpha: float, options: Options) -> bool:
        """Whether `write` would change no bit; False as well if a GPU has no memory for it."""
        with suppress(torch.OutOfMemoryError):
            for name, out, *parents in self._chunks(live):
                found = torch.empty_like(out)
                _compute(found, *parents, alpha, options, name)
                if not torch.equal(found.view(torch.uint8), out.view(torch.uint8)):
                    return False
            return True
        return False

    def _chunks(self, live: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        for name, theta1 in self.theta1.items():
            size = CHUNK[live[name].device.type]
            flat = (live[name].detach().view(-1), theta1, self.theta0[name])
            for pieces in zip(*(each.split(size) for each in flat), strict=True):
                yield name, *pieces


def _compute(out: Tensor, theta1: Tensor, theta0: Tensor, alpha: float, options: Options, name: str) -> None:
    theta1, theta0 = (each.to(out.device, non_blocking=True) for each in (theta1, theta0))
    if not out.is_floating_point():
        out.copy_(theta1)
    elif out.dtype == theta1.dtype:
        theta2(out, theta1, theta0, alpha, overflow=options.overflow, name=name)
    else:  # the engine computes in float32 what is stored in 16 bits
        stored = torch.empty_like(theta1)
        theta2(stored, theta1, theta0, alpha, overflow=options.overflow, name=name)
        out.copy_(stored)


def moved(
    kept: Parents | None, streamed: Streamed, live: Mapping[str, Tensor], needed: int, again: bool
) -> Parents | None:
    """Write the weights that `streamed` means into `live`, an engine's tensors, and return what is to be kept for the next.

    `live` has all of them by the names of the checkpoint, besides constants of the class. `kept` is what the last call
    returned, `needed` how many bytes of a GPU the engine needs beside its weights; `again`: the weights there are of this pair, so
    that it pays to read both models, which takes twice as long as one alpha. None if the weights are to be read as usual.
    """
    found = key_of(streamed)
    if found is None:
        return None
    key, types = found
    # Others are constants that the class computes by itself.
    given = {name: live[name] for name in types if name in live}
    if any(each.dtype not in (types[name], torch.float32) for name, each in given.items()) or not usable(
        [*given.values()]
    ):
        return None
    if kept is None or kept.key != key:
        if kept:  # its memory is free before other parents take it
            kept.theta1.clear()
            kept.theta0.clear()
        kept = None
        if not again:
            return None
    with suppress(torch.OutOfMemoryError):
        kept = kept or _read(streamed, key, given, needed)
        if kept:
            kept.write(given, streamed.alpha, streamed.options)
        return kept
    return None


def room(live: Mapping[str, Tensor], needed: int | None = 0, processes: int = 1) -> dict[str, Any] | None:
    """Where twice the bytes of `live` have room, as arguments of torch.empty; None if nowhere.

    `needed` as for `moved`; with None a GPU is left alone. `processes` of this machine ask for as much at a time.
    """
    sizes = [each.nbytes for each in live.values()]
    size = 2 * sum(sizes)
    device = next(iter(live.values())).device
    if device.type == "cuda" and needed is not None:
        torch.cuda.empty_cache()
        if size + needed + SCRATCH <= torch.cuda.mem_get_info(device)[0]:
            return {"device": device}
    pinned = device.type == "cuda"
    if pinned:  # what torch pins has a power of two of bytes
        with suppress(RuntimeError):
            torch.accelerator.empty_host_cache()
        size = 2 * sum(1 << (each - 1).bit_length() for each in sizes)
    if SHARE * processes * size <= min(free_memory(), allowed_memory()):
        return {"pin_memory": pinned}
    return None


def copied(tensor: Tensor, place: Mapping[str, Any]) -> Tensor:
    """A copy there, of one dimension; in memory that is not pinned if no more can be."""
    try:
        made = torch.empty(tensor.numel(), dtype=tensor.dtype, **place)
    except RuntimeError:
        if not place.get("pin_memory"):
            raise
        made = torch.empty(tensor.numel(), dtype=tensor.dtype)
    return made.copy_(tensor.detach().reshape(-1))


def key_of(streamed: Streamed) -> tuple[Any, dict[str, torch.dtype | None]] | None:
    """What theta1 and theta0 depend on, and the types of both, by the checkpoint's names.

    The files count by place, size and time of change. None if theta2 is more than the formula on tensors of these types.
    Raises PairError for a pair that does not fit.
    """
    options = streamed.options
    pair = open_pair(streamed.sft, streamed.aligned, options.vocabulary)
    pair.require()
    if options.alpha_for or need_torch(pair, options):
        return None
    for part in pair.parts:
        if part.shared and not part.theta1.dtype == part.theta0.dtype == options.stored_type(part.theta1):
            return None
    states = [(path, path.stat()) for each in (pair.sft, pair.aligned) for path in each.sources]
    files = [(path, state.st_ino, state.st_size, state.st_mtime_ns) for path, state in states]
    return (options, files), {name: TORCH.get(tensor.dtype) for name, tensor in pair.aligned.tensors.items()}


def usable(live: Collection[Tensor]) -> bool:
    """Whether theta2 can be written into these tensors with the bits of the CPU's loop."""
    devices = {str(each.device) for each in live}
    return all(each.is_contiguous() and each.device.type in CHUNK for each in live) and all(
        exact(device) for device in devices - {"cpu"}
    )


def _read(streamed: Streamed, key: Any, live: Mapping[str, Tensor], needed: int) -> Parents | None:
    place = room(live, needed)
    if place is None:
        return None
    parents = Parents(key)
    device = next(iter(live.values())).device.type
    for side, alpha in ((parents.theta1, 0.0), (parents.theta0, -1.0)):
        for name, tensor in tensors_for(streamed.model_copy(update={"alpha": alpha}), device):
            if name in live:
                side[name] = copied(tensor, place)
    return parents
