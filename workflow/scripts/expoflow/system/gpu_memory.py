"""How much memory GPUs have, and how many a model needs; found without importing torch."""

import math
import subprocess

from expoflow.config.engine import BY_ITSELF, UTILIZATION, EngineConfig

GPU = 80 * 10**9  # bytes of the GPUs that a model is spread over where nobody knows them
ROOM = 1.3  # memory of a loaded model per byte of its weights: activations and the KV cache come on top


def gpus(weights: float, memory: int | None = None, engine: EngineConfig = BY_ITSELF) -> int:
    """GPUs of so many bytes, by default 80 GB, that a model needs: 1, 2, 4, ..., as tensor parallelism wants it.

    Its `weights` are those on disk, of 16 bits where the engine quantises them.
    """
    needed = max(1, weights * engine.weight(2) / 2 * ROOM)
    return 2 ** max(0, math.ceil(math.log2(needed / ((memory or GPU) * engine.utilization() / UTILIZATION))))


def smallest() -> int | None:
    """Bytes of the GPU with the least memory; None if nvidia-smi does not say."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout
        return min(int(line) << 20 for line in said.split()) if said.strip() else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
