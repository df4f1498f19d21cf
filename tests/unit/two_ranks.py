"""A program for test_sharing.py: one of two processes that load models together, one load after the other.

`two_ranks.py RANK FILE LOADS`: they meet at FILE. LOADS is JSON: for each load, what each rank is asked for: `streamed`,
and the number of tensors after which it `breaks` with an error of its own, or `stops` without one. For each load it prints JSON: the
`error` that was raised, the names that it `read`, and the `digest` of what it got. First it prints digests of what rank 0 sends: tensors of
many types.
"""

import hashlib
import json
import sys
from datetime import timedelta

import torch
from expoflow.engines.sharing import Ranks, shared
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import Stream, opened, require_equal
from torch import Tensor, distributed

TYPES = [
    *(torch.float8_e4m3fn, torch.bfloat16, torch.float64, torch.complex64),
    *(torch.bool, torch.uint8, torch.int16, torch.uint64),
]


class Counted(Stream):
    """A stream that knows which tensors were asked of it."""

    asked: list[str]

    def tensor(self, index: int) -> Tensor:
        self.asked.append(self.names[index])
        return super().tensor(index)


def digest(name: str, tensor: Tensor) -> str:
    bits = tensor.view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + bits).hexdigest()


def sent(ranks: Ranks) -> list[str]:
    """Digests of rank 0's tensors, after they were sent."""
    made = [
        torch.full(shape, 1 - ranks.rank, dtype=torch.uint8).to(dtype)
        for dtype in TYPES
        for shape in ((3, 5), (), (0, 2))
    ]
    for each in made:
        ranks.send(each, owner=0, room=None)
    return [digest("", each) for each in made]


def load(ranks: Ranks, streamed: dict, breaks: int = -1, stops: int = -1) -> dict:
    """One load: what is printed of it."""
    Counted.asked = []
    error, got = None, []
    try:
        with ranks.together(), opened(Streamed.model_validate(streamed)) as stream:
            if ranks.rank == 0:
                require_equal(stream.pair)
            for at, (name, tensor) in enumerate(shared(Counted(**vars(stream)), ranks)):
                if at == breaks:
                    raise ValueError(f"no room for {name}")
                if at == stops:
                    break
                got.append(digest(name, tensor))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    return {"error": error, "read": Counted.asked, "digest": digest(" ".join(got), torch.zeros(0))}


def main(rank: int, file: str, loads: list[list[dict]]) -> None:
    minutes = timedelta(minutes=4)
    distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=minutes
    )
    ranks = Ranks(rank, 2, distributed.group.WORLD)
    assert ranks.on_one_machine()
    print(json.dumps(sent(ranks)))
    for each in loads:
        print(json.dumps(load(ranks, **each[rank])), flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
