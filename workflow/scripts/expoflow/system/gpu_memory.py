"""How much memory GPUs have, and how many a model needs; found without importing torch."""

import itertools
from collections.abc import Sequence

from expoflow.config.engine import BY_ITSELF, UTILIZATION, EngineConfig
from expoflow.system.gpus import memory, rows

GPU = 80 * 10**9  # bytes of the GPUs that a model is spread over where nobody knows them
ROOM = 1.3  # memory of a loaded model per byte of its weights: activations and the KV cache come on top


def gpus(weights: float, card: int | None = None, engine: EngineConfig = BY_ITSELF) -> int:
    """GPUs of so many bytes (`card`), by default 80 GB, that a model needs: 1, 2, 4, ..., as tensor parallelism wants it."""
    return next(count for count in map((2).__pow__, itertools.count()) if hold(count, weights, card, engine))


def hold(count: int, weights: float, card: int | None = None, engine: EngineConfig = BY_ITSELF) -> bool:
    """Whether so many GPUs hold a model with room. Arguments as of `gpus`; the `weights` are the bytes on disk, of 16 bits where
    the engine quantises them.
    """
    return loaded(weights, engine) * ROOM <= count * (card or GPU) * engine.utilization() / UTILIZATION


def loaded(weights: float, engine: EngineConfig) -> float:
    """Bytes of 16-bit weights as an engine holds them."""
    return weights * engine.weight(2) / 2


def smallest(devices: Sequence[str]) -> int | None:
    """Bytes of the one of these GPUs that has the least memory; None if the driver does not say.

    If it is not clear which these are, as on a machine with several kinds, all GPUs of the machine count.
    """
    if found := memory(devices):
        return min(total for _, total, _ in found)
    if not devices or any(device.startswith("MIG-") for device in devices):
        return None
    said = [(mig, total) for _, _, mig, _, total, _ in rows()]
    known = all(mig != "Enabled" and total.isdecimal() for mig, total in said)
    return min((int(total) << 20 for _, total in said), default=None) if known else None
