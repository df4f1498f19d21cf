"""The GPUs that this process may use; found without importing torch."""

import csv
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from itertools import takewhile
from pathlib import Path

from expoflow.errors import ExpoflowError

DEVICES = Path("/dev")
QUERY = "index,uuid,mig.mode.current,memory.free,memory.total,name"
DRIVER = Path("/proc/driver/nvidia/version")  # exists if the driver of this machine is loaded
VISIBLE = "CUDA_VISIBLE_DEVICES"


def allotted() -> int:
    """Return how many GPUs a model is spread over; 1 without any."""
    return max(1, len(given()))


def given() -> list[str]:
    """Return the GPUs that a slot or a cluster gave this process, or else the first one."""
    return gpus() if "CUDA_VISIBLE_DEVICES" in os.environ else gpus()[:1]


def gpus() -> list[str]:
    """Return the CUDA devices that this process may use.

    As in CUDA, the first invalid name and everything after it are ignored. Raises ExpoflowError if
    a device is named twice, or if the driver is loaded but nvidia-smi fails.
    """
    if "+cpu" in metadata.version("torch"):
        return []
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return [str(index) for index in range(_number())]
    named = [*takewhile(_is_name, map(str.strip, visible.split(",")))]
    if len({*named}) < len(named):
        raise ExpoflowError(f"{VISIBLE}={visible} names a GPU twice; name each once")
    return named


def require_known(devices: Sequence[str]) -> None:
    """Raise ExpoflowError for a device that, according to the driver, this machine lacks."""
    number = _number() if devices else 0
    if number and (beyond := [each for each in devices if each.isdecimal() and int(each) >= number]):
        raise ExpoflowError(f"{VISIBLE} names GPU {beyond[0]}, but there are {number} GPUs here; correct it")


@cache
def _number() -> int:
    """Return the number of GPUs according to the driver, or without nvidia-smi the kernel."""
    if shutil.which("nvidia-smi"):
        return len(_told(lambda line: line.startswith("GPU "), "-L"))
    return len([*DEVICES.glob("nvidia[0-9]*")])


def _is_name(device: str) -> bool:
    return device.isdecimal() or device.startswith(("GPU-", "MIG-"))


def none() -> bool:
    """Return whether there is surely no usable GPU, by `gpus` (CUDA) or device files (others)."""
    if gpus() or os.environ.get(VISIBLE) == "":
        return not gpus()
    return not any(any(DEVICES.glob(name)) for name in ("nvidia*", "kfd", "dxg"))


def memory(devices: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return free bytes, total bytes and name of these CUDA devices; empty if one is unknown.

    Another process asks the driver (NVML), so CUDA stays unused in this one and its forks may use
    it. For a part of a GPU (MIG) the driver's figures do not apply. In CUDA's own order, GPUs of
    several kinds have other numbers than the driver's.
    """
    if not devices or any(device.startswith("MIG-") for device in devices):
        return []
    told = rows()
    if len({row[-1] for row in told}) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        told = [["", *row[1:]] for row in told]  # match them by UUID alone
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


def rows() -> list[list[str]]:
    """Return the driver's answer for each GPU of this machine; columns as in QUERY."""
    number = len(QUERY.split(","))
    told = _told(
        lambda line: line.count(",") == number - 1, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"
    )
    return [*csv.reader(told, skipinitialspace=True)]


def driver() -> str | None:
    """Return the version of the driver; None without one."""
    told = _told(lambda line: line[:1].isdigit(), "--query-gpu=driver_version", "--format=csv,noheader")
    return told[0].strip() if told else None


def _is(device: str, uuid: str) -> bool:
    """Return whether a device is named by this UUID, or by its beginning, as CUDA allows."""
    return device.startswith("GPU-") and uuid.startswith(device)


def _told(wanted: Callable[[str], bool], *arguments: str) -> list[str]:
    """Return nvidia-smi's `wanted` lines without warnings; empty without it or a driver.

    Raises ExpoflowError if there are none although a driver is loaded: the run would go on without
    GPUs.
    """
    try:
        command = ["nvidia-smi", *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
        found, failed = [*filter(wanted, answer.stdout.splitlines())], f"{answer.stdout} {answer.stderr}"
    except FileNotFoundError:
        return []
    except (OSError, subprocess.TimeoutExpired) as error:
        found, failed = [], str(error)
    if not found and DRIVER.exists():
        raise ExpoflowError(
            f"nvidia-smi lists no GPU, although a driver is loaded ({' '.join(failed.split())[:200]}); repair the driver, or set"
            f" {VISIBLE}= to go on without GPUs"
        )
    return found
