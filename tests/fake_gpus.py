"""A machine that seems to have GPUs: a program `nvidia-smi`, and a torch that was built for CUDA by its version."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

VERSION = """import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version(name).partition("+")[0] if name == "torch" else version(name)
"""


class Gpu(NamedTuple):
    """What the driver says of a GPU; `free` and `total` in MiB."""

    free: int | str = 80_000
    name: str = "NVIDIA H100"
    mig: str = "Disabled"
    total: int | str = 81_559


def fake_gpus(folder: Path, *gpus: Gpu) -> dict[str, str]:
    """The environment in which processes see these GPUs, made of files in `folder`; their UUIDs are GPU-0a, GPU-1a, ..."""
    folder.mkdir()
    listed = [f"GPU {at}: {gpu.name} (UUID: GPU-{at}a)" for at, gpu in enumerate(gpus)]
    rows = [f"{at}, GPU-{at}a, {gpu.mig}, {gpu.free}, {gpu.total}, {gpu.name}" for at, gpu in enumerate(gpus)]
    (folder / "listed").write_text("\n".join(listed) + "\n")
    (folder / "rows").write_text("\n".join(rows) + "\n")
    cat, shell = shutil.which("cat"), shutil.which("sh")
    program = folder / "nvidia-smi"
    program.write_text(
        f'#!{shell}\ncase "$*" in\n -L) {cat} {folder}/listed;;\n'
        f" '--query-gpu=index,uuid,mig.mode.current,memory.free,memory.total,name --format=csv,noheader,nounits') {cat} {folder}/rows;;\n"
        " *) echo Unable to determine the device handle >&2; exit 6;;\nesac\n"
    )
    program.chmod(0o755)
    (folder / "sitecustomize.py").write_text(VERSION)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(folder)}
