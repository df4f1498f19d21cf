"""How much memory GPUs have, and how many a model needs; found without importing torch."""

import math
import subprocess

from expoflow.config.engine import BY_ITSELF, UTILIZATION, EngineConfig
from expoflow.system.gpus import gpus as visible
from expoflow.system.gpus import memory

GPU = 80 * 10**9  # bytes of the GPUs that a model is spread over where nobody knows them
ROOM = 1.3  # memory of a loaded model per byte of its weights: activations and the KV cache come on top


def gpus(weights: float, each: int | None = None, engine: EngineConfig = BY_ITSELF) -> int:
    """GPUs of so many bytes `each`, by default 80 GB, that a model needs: 1, 2, 4, ..., as tensor parallelism wants it.

    Its `weights` are those on disk, of 16 bits where the engine quantises them.
    """
    needed = max(1, weights * engine.weight(2) / 2 * ROOM)
    return 2 ** max(0, math.ceil(math.log2(needed / ((each or GPU) * engine.utilization() / UTILIZATION))))


def smallest() -> int | None:
    """Bytes of the GPU with the least memory of those that this process may use, of all if it is not known which those are; None
    if nvidia-smi does not say.
    """
    if found := memory(visible()):
        return min(whole for _, whole, _ in found)
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout
        return min(int(line) << 20 for line in said.split()) if said.strip() else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
