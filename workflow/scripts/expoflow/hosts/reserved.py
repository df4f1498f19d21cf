"""GPUs of a local run for work that is not a task of an engine host, such as training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from expoflow.errors import ExpoflowError
from expoflow.hosts.head import Head
from expoflow.hosts.slot import taken
from expoflow.hosts.waiting import Wish


@contextmanager
def reserved(gpus: int, what: str) -> Iterator[None]:
    """Reserve GPUs while the block runs, without hosts there: CUDA_VISIBLE_DEVICES names them.

    Waits until they are free. Nothing is reserved without GPUs, if `gpus` is 0, or outside of a
    local run. Raises ExpoflowError if this machine has fewer GPUs; `what` names who asks.
    """
    announced = os.environ.get("EXPOFLOW_HEAD")
    head = Head.model_validate_json(announced) if announced else None
    if head is None or not gpus or head.slots[0] is None:
        yield
        return
    head.require()
    if gpus > len(head.slots):
        raise ExpoflowError(
            f"{what} starts {gpus} processes, each on a GPU, here are {len(head.slots)}; set num_processes in a copy of it"
        )
    print(f"waiting for {gpus} of {len(head.slots)} GPUs", flush=True)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    with taken(head, Wish(kind="train", key=str(os.getpid()), slots=gpus)) as slot:
        print(f"on GPU {slot.gpu}", flush=True)
        slot.clear()
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
        try:
            yield
        finally:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            if visible is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = visible
