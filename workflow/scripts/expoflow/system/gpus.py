"""Which GPUs this process may use; found without importing torch."""

import os
import subprocess
from importlib import metadata


def allotted() -> int:
    """How many GPUs a model is spread over: those that a slot or a cluster gave this process; 1 if none did."""
    return max(1, len(gpus())) if "CUDA_VISIBLE_DEVICES" in os.environ else 1


def gpus() -> list[str]:
    """The CUDA devices that this process may use; found without importing torch."""
    if "+cpu" in metadata.version("torch"):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in visible.split(",") if device and not device.startswith("-")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
