"""An environment that has what a wheel says it needs and nothing else, without a network, git, or this repository."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def build(repository: Path, folder: Path) -> Path:
    """The wheel, made of the source distribution, as `make wheel` makes both."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, repository]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def needed(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """The distributions of this environment that `requirements` come to, by name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(Requirement(each), {""}) for each in requirements]
    seen = set()
    while waiting:
        requirement, extras = waiting.pop()
        wanted = any(
            not requirement.marker or requirement.marker.evaluate({"extra": each}) for each in extras
        )
        if not wanted or (str(requirement), frozenset(extras)) in seen:
            continue
        seen.add((str(requirement), frozenset(extras)))
        found[canonicalize_name(requirement.name)] = each = metadata.distribution(requirement.name)
        waiting += [(Requirement(more), requirement.extras | {""}) for more in each.requires or ()]
    return found


def install(wheel: Path, folder: Path) -> Path:
    """`pip install WHEEL` in a new environment in `folder`; its bin/, with every program of this machine but git."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (described,) = metadata.distributions(name="expoflow", path=[str(wheel)])
    for each in needed(described.requires).values():
        for top in {file.parts[0] for file in each.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(each.locate_file(top))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    for place in ("/usr/bin", "/bin"):
        for program in os.listdir(place):
            if not program.startswith(("git", "python")) and not (folder / "bin" / program).exists():
                (folder / "bin" / program).symlink_to(Path(place, program))
    return folder / "bin"
