"""Change alpha without reading files: an engine keeps theta1 and theta0 and writes theta2 in place.

Theta1 and theta0 are kept in the layout of the engine's weights. Theta2 is always computed from
these two, never from the current weights, and equals the result of `extrapolation.arithmetic` bit
for bit. The two take twice the memory of the weights: on the GPU if there is room, otherwise in
main memory. If a pair does not qualify, its files are read again at each move.
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

CHUNK = {"cpu": 1 << 20, "cuda": 1 << 22}  # elements computed at once
SCRATCH = 1 << 30  # bytes of GPU memory that a chunk may need
SHARE = 4  # 1 / SHARE of the free main memory may be used: others load models too


@dataclass
class Parents:
    """theta1 and theta0 of the pair that `key` identifies.

    Values are as stored, one-dimensional, keyed by the names of an engine's tensors.
    """

    key: Any
    theta1: dict[str, Tensor] = field(default_factory=dict)
    theta0: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def write(self, live: Mapping[str, Tensor], alpha: float, options: Options) -> None:
        """Write theta2 into the tensors of `live` whose parents were kept.

        Raises PairError as `arithmetic.theta2` does, and torch.OutOfMemoryError if a GPU has no
        memory for a chunk. After an OutOfMemoryError the weights are unusable.
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
        """Whether `write` would change no bit; False if a GPU has no memory for the check."""
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
    else:  # the engine computes 16-bit weights in float32
        stored = torch.empty_like(theta1)
        theta2(stored, theta1, theta0, alpha, overflow=options.overflow, name=name)
        out.copy_(stored)


def moved(
    kept: Parents | None, streamed: Streamed, live: Mapping[str, Tensor], needed: int, again: bool
) -> Parents | None:
    """Write the weights of `streamed` into `live`, an engine's tensors; return what to keep.

    `live` has all tensors by the names of the checkpoint, and constants of the class. `kept` is
    what the last call returned. `needed` is how many bytes of GPU memory the engine needs besides
    its weights. `again` says that the current weights are of this pair too: reading both models
    then pays, although it takes twice as long as one alpha. Returns None if the weights must be
    read from files as usual.
    """
    found = key_of(streamed)
    if found is None:
        return None
    key, types = found
    # The other tensors are constants that the class computes itself.
    given = {name: live[name] for name in types if name in live}
    if any(each.dtype not in (types[name], torch.float32) for name, each in given.items()) or not usable(
        [*given.values()]
    ):
        return None
    if kept is None or kept.key != key:
        if kept:  # free its memory before other parents take it
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
    """Return where twice the bytes of `live` fit, as arguments of torch.empty; None if nowhere.

    `needed` is as in `moved`; if it is None, no GPU memory is used. `processes` is how many
    processes of this machine ask for this much at the same time.
    """
    sizes = [each.nbytes for each in live.values()]
    size = 2 * sum(sizes)
    device = next(iter(live.values())).device
    if device.type == "cuda" and needed is not None:
        torch.cuda.empty_cache()
        if size + needed + SCRATCH <= torch.cuda.mem_get_info(device)[0]:
            return {"device": device}
    pinned = device.type == "cuda"
    if pinned:  # torch rounds pinned blocks up to a power of two
        with suppress(RuntimeError):
            torch.accelerator.empty_host_cache()
        size = 2 * sum(1 << (each - 1).bit_length() for each in sizes)
    if SHARE * processes * size <= min(free_memory(), allowed_memory()):
        return {"pin_memory": pinned}
    return None


def copied(tensor: Tensor, place: Mapping[str, Any]) -> Tensor:
    """Return a one-dimensional copy in `place`, or in ordinary memory if none can be pinned."""
    try:
        made = torch.empty(tensor.numel(), dtype=tensor.dtype, **place)
    except RuntimeError:
        if not place.get("pin_memory"):
            raise
        made = torch.empty(tensor.numel(), dtype=tensor.dtype)
    return made.copy_(tensor.detach().reshape(-1))


def key_of(streamed: Streamed) -> tuple[Any, dict[str, torch.dtype | None]] | None:
    """Return what theta1 and theta0 depend on, and their types by the checkpoint's names.

    Files are identified by path, inode, size and time of change. Returns None if theta2 is more
    than the plain formula on tensors of these types. Raises PairError for a pair that does not fit.
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
