"""`expoflow doctor`: what this machine can do for a run, and what it lacks."""

import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from expoflow import __version__, store
from expoflow.engines.model import chosen
from expoflow.errors import ExpoflowError
from expoflow.project.begin import SLURM_PROFILE, for_slurm
from expoflow.system import gpus, processor
from expoflow.system.installed import workflow_folder

GB = 1e9
PATIENCE = 3  # seconds in which the hub must answer
PAIR = 45 * GB  # two models and the exported one
ROOM = 50 * GB  # a disk with less free space gets a remedy
# What each extra adds; its first package shows whether it is installed.
EXTRAS = {
    "bench": ("lm_eval", "the paper's benchmarks"),
    "train": ("trl", "training by TRL"),
}
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Finding:
    """A line of the result. `remedy` is the command that fixes or adds something.

    `broken` means that no run works until then.
    """

    label: str
    text: str
    remedy: str = ""
    broken: bool = False


def examine(folder: Path, online: bool) -> Iterator[Finding]:
    """Check this machine for runs in `folder`, and with `online` the hub. Nothing is written."""
    yield Finding("expoflow", f"{__version__} in {workflow_folder()}, Python {platform.python_version()}")
    yield from _processor()
    found = _gpus()
    yield from found
    number = sum(finding.label == "GPU" for finding in found)
    yield from _packages(number)
    yield from _engine(number)
    yield from _disks(folder)
    yield from _hub(online)
    yield from _slurm(folder)


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the findings as lines, each remedy below its finding."""
    for finding in findings:
        yield f"{finding.label:10} {finding.text}"
        if finding.remedy:
            yield f"{'':10} -> {finding.remedy}"


def _processor() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    slow = processor.slowness("bfloat16")
    said = (
        f"bfloat16 takes {slow:.0f} times as long as float32, so models compute in float32"
        if slow > processor.SLOW
        else "bfloat16 is fast"
    )
    yield Finding("processor", f"{cores} {'core' if cores == 1 else 'cores'}; {said}")
    if MEMORY.exists():
        stated = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        free, total = (int(stated[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
        yield Finding("memory", f"{_gb(free)} free of {_gb(total)}")


def _gpus() -> list[Finding]:
    """Return the GPUs that the driver lists, and whether runs may use them."""
    try:
        rows, driver = gpus.rows(), gpus.driver()
    except ExpoflowError as error:
        return [Finding("GPUs", str(error), broken=True)]
    if not rows:
        return [Finding("GPUs", "none: models run on the processor, which is fit for small ones only")]
    found = [
        Finding(
            "GPU",
            f"{index}: {name}, {_mebibytes(free)} free of {_mebibytes(total)}, driver {driver or 'unknown'}",
        )
        for index, _, _, free, total, name in rows
    ]
    visible = os.environ.get(gpus.VISIBLE)
    if visible is not None:
        found.append(Finding("", f"{gpus.VISIBLE}={visible}: runs use only these"))
    return found


def _packages(number: int) -> Iterator[Finding]:
    version = metadata.version("torch")
    if number and "+cpu" in version:
        wanted = version.partition("+")[0]
        remedy = f"pip uninstall -y torch && pip install torch=={wanted}"
        yield Finding("torch", f"{version}, which cannot use the GPUs", remedy, broken=True)
    else:
        yield Finding("torch", f"{version}{' (no GPU is needed)' if '+cpu' in version else ''}")
    for extra, (package, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(package) is not None
        said = "installed" if there else "not installed"
        yield Finding(extra, f"{purpose}: {said}", "" if there else f"pip install 'expoflow[{extra}]'")


def _engine(number: int) -> Iterator[Finding]:
    there = importlib.util.find_spec("vllm") is not None
    if there:
        yield Finding("vLLM", metadata.version("vllm"))
    else:
        remedy = "pip install 'expoflow[gpu]'" if number else ""
        yield Finding("vLLM", "not installed", remedy)
    try:
        engine = chosen("auto")
    except ExpoflowError as error:  # a GPU named twice, or a broken driver
        yield Finding("engine", str(error), broken=True)
        return
    why = {
        (True, True): "vLLM is installed, and there is a GPU",
        (True, False): "no GPU may be used here",
        (False, True): "vLLM is not installed: many times slower on a GPU",
        (False, False): "vLLM is not installed, and there is no GPU",
    }[there, bool(gpus.gpus())]
    yield Finding("engine", f"`auto` takes {engine}: {why}")


def _disks(folder: Path) -> Iterator[Finding]:
    from huggingface_hub import constants

    places = (
        ("hub cache", Path(constants.HF_HUB_CACHE), "HF_HOME"),
        ("store", store.root(), "EXPOFLOW_STORE"),
    )
    for label, place, variable in places:
        yield _disk(label, place, f"export {variable}=DIR on another disk")
    yield _disk("folder", folder.absolute(), "run in a folder on another disk: --out DIR")


def _disk(label: str, place: Path, remedy: str) -> Finding:
    there = next(each for each in (place, *place.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(label, f"{place}: {there} cannot be written to", remedy, broken=True)
    free = shutil.disk_usage(there).free
    if free < ROOM:
        return Finding(label, f"{place}: {_gb(free)} free; a pair of 7B models takes {_gb(PAIR)}", remedy)
    return Finding(label, f"{place}: {_gb(free)} free")


def _hub(online: bool) -> Iterator[Finding]:
    from huggingface_hub import constants, get_token

    from expoflow.hub import http

    if not online or constants.HF_HUB_OFFLINE:
        yield Finding("hub", f"{http.ENDPOINT}: not asked (offline)")
    else:
        yield _answer(http.ENDPOINT, lambda: _ask(constants.ENDPOINT))
    if get_token():
        yield Finding("token", f"found: {http.token_name()}")
    else:
        yield Finding("token", "none: only gated models and `expoflow publish` need one", "hf auth login")


def _answer(shown: str, ask: Callable[[], int]) -> Finding:
    begin = time.monotonic()
    remedy = "fix the network or the proxy, name a mirror (export HF_ENDPOINT=...), or use local folders and HF_HUB_OFFLINE=1"
    try:
        status = ask()
    except Exception as error:  # of whichever HTTP library the hub's client uses
        return Finding("hub", f"{shown}: does not answer ({type(error).__name__})", remedy)
    if status != 200:  # from a proxy, or from a server that is not a hub
        later = status == 429 or status >= 500
        return Finding("hub", f"{shown}: answers HTTP {status}", "try again later" if later else remedy)
    return Finding("hub", f"{shown}: answers in {time.monotonic() - begin:.1f} s")


def _ask(endpoint: str) -> int:
    """Return the status of a small request; the token is not sent."""
    from huggingface_hub import get_session

    return get_session().get(f"{endpoint}/api/models", params={"limit": 1}, timeout=PATIENCE).status_code


def _slurm(folder: Path) -> Iterator[Finding]:
    if not shutil.which("sbatch"):
        yield Finding("SLURM", "not here")
        return
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        yield Finding("SLURM", "here, but Snakemake's plugin is not", "pip install 'expoflow[slurm]'")
    elif not for_slurm(folder):
        yield Finding("SLURM", f"here; {folder} has no {SLURM_PROFILE}", "expoflow init DIR writes one")
    else:
        yield Finding("SLURM", "here; run with: -- --profile slurm")


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB"


def _mebibytes(text: str) -> str:
    return _gb(int(text) * 2**20) if text.isdecimal() else text
