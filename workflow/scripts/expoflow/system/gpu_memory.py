"""The memory that GPUs have and that models need; found without importing torch."""

import itertools
from collections.abc import Sequence

from expoflow.config.engine import BY_ITSELF, UTILIZATION, EngineConfig
from expoflow.system.gpus import memory, rows

GPU = 80 * 10**9  # assumed bytes of a GPU if nobody knows which GPUs a model gets
ROOM = 1.3  # memory of a loaded model per byte of its weights, with activations and the KV cache


def gpus(weights: float, card: int | None = None, engine: EngineConfig = BY_ITSELF) -> int:
    """Return how many GPUs of `card` bytes (80 GB by default) a model needs.

    It is 1, 2, 4, ..., as tensor parallelism requires.
    """
    return next(count for count in map((2).__pow__, itertools.count()) if hold(count, weights, card, engine))


def hold(count: int, weights: float, card: int | None = None, engine: EngineConfig = BY_ITSELF) -> bool:
    """Return whether `count` GPUs hold a model with room to spare.

    Arguments are those of `gpus`. `weights` are the bytes on disk, or those of 16-bit weights if
    the engine quantises them.
    """
    return loaded(weights, engine) * ROOM <= count * (card or GPU) * engine.utilization() / UTILIZATION


def loaded(weights: float, engine: EngineConfig) -> float:
    """Return the bytes that 16-bit weights take in an engine."""
    return weights * engine.weight(2) / 2


def smallest(devices: Sequence[str]) -> int | None:
    """Return the memory in bytes of the smallest of these GPUs; None if the driver does not say.

    If it is unclear which GPUs these are, as on a machine with several kinds, all its GPUs count.
    """
    if found := memory(devices):
        return min(total for _, total, _ in found)
    if not devices or any(device.startswith("MIG-") for device in devices):
        return None
    said = [(mig, total) for _, _, mig, _, total, _ in rows()]
    known = all(mig != "Enabled" and total.isdecimal() for mig, total in said)
    return min((int(total) << 20 for _, total in said), default=None) if known else None
