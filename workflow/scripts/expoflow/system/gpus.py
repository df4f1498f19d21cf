"""Which GPUs this process may use; found without importing torch."""

import csv
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

DEVICES = Path("/dev")
QUERY = "index,uuid,mig.mode.current,memory.free,memory.total,name"


def allotted() -> int:
    """How many GPUs a model is spread over; 1 without any."""
    return max(1, len(given()))


def given() -> list[str]:
    """The GPUs that a model is spread over: those that a slot or a cluster gave this process, the first one if none did."""
    return gpus() if "CUDA_VISIBLE_DEVICES" in os.environ else gpus()[:1]


def gpus() -> list[str]:
    """The CUDA devices that this process may use; found without importing torch."""
    if "+cpu" in metadata.version("torch"):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in visible.split(",") if device and not device.startswith("-")]
    if shutil.which("nvidia-smi"):
        count = sum(line.startswith("GPU ") for line in _told("-L"))
    else:  # as in a container with CUDA alone
        count = len([*DEVICES.glob("nvidia[0-9]*")])
    return [str(index) for index in range(count)]


def none() -> bool:
    """Whether it is sure that this process may use no GPU: of CUDA by `gpus`, or of ROCm or WSL by the kernel's devices."""
    if gpus() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return not gpus()
    return not any(any(DEVICES.glob(name)) for name in ("nvidia*", "kfd", "dxg"))


def free_memory(devices: Sequence[str]) -> tuple[int, str] | None:
    """Free bytes of the fullest of these CUDA devices, and its name; None if they are not known."""
    found = memory(devices)
    return min((free, name) for free, _, name in found) if found else None


def memory(devices: Sequence[str]) -> list[tuple[int, int, str]]:
    """Free bytes, all bytes and the name of each of these CUDA devices; nothing if one of them is not known.

    The driver is asked (NVML), by another process: CUDA stays unused in this one, so that what it forks may use it. Of a part
    of a GPU (MIG) the driver tells nothing that counts, and in CUDA's own order GPUs of several kinds have other numbers.
    """
    if any(device.startswith("MIG-") for device in devices):
        return []
    told = [
        *csv.reader(_told(f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"), skipinitialspace=True)
    ]
    if len({row[-1] for row in told}) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        told = [["", *row[1:]] for row in told]  # found by their UUID alone
    found = []
    with suppress(ValueError):
        for device in devices:
            ((_, _, mig, free, total, name),) = (
                row for row in told if device == row[0] or _is(device, row[1])
            )
            if mig == "Enabled":
                return []
            found.append((int(free) << 20, int(total) << 20, f"{name} (GPU {device})"))
        return found
    return []


def _is(device: str, uuid: str) -> bool:
    """Whether a device is named by this UUID, or by its beginning, as CUDA allows."""
    return device.startswith("GPU-") and uuid.startswith(device)


def _told(*arguments: str) -> list[str]:
    """The lines that nvidia-smi says; none where there is no such program."""
    try:
        answer = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.splitlines()
