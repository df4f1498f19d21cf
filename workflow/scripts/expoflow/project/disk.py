"""What a run will write, by file system, and whether it fits; reported before its first job."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from expoflow import store
from expoflow.config import Config
from expoflow.errors import DataError, ExpoflowError
from expoflow.files.records import read_json
from expoflow.paths import Results
from expoflow.project.estimate import GB, Estimate, Facts
from expoflow.results import Manifest

TIGHT = 0.9  # share of the free space from which on a line is a warning
WORTH_SAYING = 0.05 * GB
DOWNLOADS, CONVERTED, TRAINED, CHECKPOINTS, SWEEP, EXPORTED = (
    "downloads",
    "converted pickles",
    "trained models",
    "checkpoints of a training",
    "the sweep's models",
    "exported models",
)
REMEDIES = {
    DOWNLOADS: "set HF_HOME to a larger disk",
    CONVERTED: "set EXPOFLOW_STORE to a larger disk",
    SWEEP: "write extrapolate: {weights: streamed} into the config",
}


@dataclass(frozen=True)
class Part:
    """Bytes still to be written in the folder `place`; `sure`: no size is guessed from a name."""

    what: str
    place: Path
    size: float
    sure: bool


def parts(config: Config, made: Estimate, folder: Path = Path()) -> Iterator[Part]:
    """Yield what the run of `config` in `folder` has still to write, according to `made`."""
    from huggingface_hub import constants

    results, hub = Results.of(folder), Path(constants.HF_HUB_CACHE)
    for name, facts in made.models.items():
        sure, repo = _sure(config, made, name), config.models[name].hub
        if not facts.here and repo:
            cached = _held(hub / f"models--{repo.replace('/', '--')}" / "blobs")
            yield Part(DOWNLOADS, hub, max(0, facts.weights - cached), sure)
        if facts.pickled and not _converted(config, name, results):
            yield Part(CONVERTED, store.root(), facts.weights, sure)
        if facts.trained:
            yield Part(TRAINED, results.models, facts.weights, sure)
    if coming := made.checkpoints:
        left = {
            name: max(0, size - _held(results.models / f".{name}.training")) for name, size in coming.items()
        }
        largest = max(left, key=left.__getitem__)
        yield Part(CHECKPOINTS, results.models, left[largest], _sure(config, made, largest))
    for pair in made.pairs:
        grid = [alpha for alpha in config.pairs[pair.pair].grid() if float(alpha) not in (-1, 0)]
        left = sum(not results.recipe(pair.pair, alpha).exists() for alpha in grid)
        sure = _sure(config, made, config.pairs[pair.pair].aligned)
        yield Part(SWEEP, results.pairs, pair.stored * left / max(len(grid), 1), sure)
        if not results.exported_recipe(pair.pair).exists():
            yield Part(EXPORTED, results.pairs, pair.exported, sure)


def check(config: Config, made: Estimate, folder: Path = Path(), *, refuse: bool) -> list[str]:
    """Return a line per file system with the bytes to come and the free space, or a warning.

    With `refuse` an ExpoflowError is raised if a file system is too small for what is sure to come.
    """
    disks: dict[int, list[Part]] = {}
    for part in parts(config, made, folder):
        disks.setdefault(os.stat(_there(part.place)).st_dev, []).append(part)
    lines, problems = [], []
    for own in disks.values():
        coming, place = sum(part.size for part in own), _there(own[0].place)
        free = shutil.disk_usage(place).free
        if coming < WORTH_SAYING:
            continue
        sums = {
            what: sum(part.size for part in own if part.what == what)
            for what in dict.fromkeys(p.what for p in own)
        }
        listed = ", ".join(f"{what} {size / GB:.1f}" for what, size in sums.items() if size)
        guessed = "" if all(part.sure for part in own if part.size) else ", some guessed from names"
        line = f"disk: {coming / GB:.1f} GB will be written to the disk of {place} ({listed}{guessed}), {free / GB:.1f} GB are free"
        ways = ["free space", *(way for what, way in REMEDIES.items() if sums.get(what))]
        remedy = f"; {', or '.join(ways)}"
        if sum(part.size for part in own if part.sure) > free:
            problems.append(line + remedy)
        lines.append(f"WARNING: {line}{remedy}" if coming > TIGHT * free else line)
    if problems and refuse:
        raise ExpoflowError("\n".join(["nothing was done:", *problems]))
    return lines


def _there(place: Path) -> Path:
    """Return `place`, or the nearest parent folder that exists."""
    whole = place.expanduser().absolute()
    return next(folder for folder in (whole, *whole.parents) if folder.is_dir())


def _sure(config: Config, made: Estimate, name: str) -> bool:
    """Return whether a model's size is known rather than guessed."""
    while made.models[name].trained and (base := config.models[name].base):
        name = base
    return not _guessed(made.models[name])


def _guessed(facts: Facts) -> bool:
    return facts.says == "its name" or facts.says.startswith("as ")


def _held(folder: Path) -> int:
    """Return the bytes of the files below a folder, including partial ones."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += 0 if path.is_symlink() or path.is_dir() else path.stat().st_size
    return total


def _converted(config: Config, name: str, results: Results) -> bool:
    """Return whether the store has a model's converted weights, by their source folder's name."""
    folder = config.models[name].path
    with suppress(DataError):
        folder = read_json(results.manifest(name), Manifest).folder
    known = Path(folder).resolve().name if folder else ""
    return bool(known) and any((store.root() / "converted").glob(f"{glob.escape(known)}-{16 * '[0-9a-f]'}"))
