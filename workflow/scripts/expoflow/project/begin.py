"""Steps of the main Snakemake process before the first job of a run."""

import os
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from itertools import dropwhile, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from expoflow import store
from expoflow.checks.early import check_models
from expoflow.checks.machine import check_gpus, check_keys, check_sources, slow_engines
from expoflow.config import Config
from expoflow.dag.resources import Needs
from expoflow.errors import ConfigError, ExpoflowError
from expoflow.hosts.head import announce
from expoflow.paths import RESULTS, Results, weights
from expoflow.project import resume
from expoflow.system import kept

if TYPE_CHECKING:
    from expoflow.project.estimate import Estimate

DRY = re.compile(
    r"-[Fkpt]*n[a-zA-Z]*|--dry[-run]*"
)  # also combined with other letters, and shortened, as Snakemake accepts it
FORCED = re.compile(r"-[fFR].*|--force(all|run)?(=.*)?")
ELSEWHERE = ("--profile", "--executor", "-e")  # Snakemake's arguments that run jobs on a cluster
SLURM_PROFILE = Path("slurm", "profile.yaml")
PATIENCE = 3  # seconds in which the hub must answer


def look(config: Config, command: Sequence[str]) -> None:
    """Check the local sources; in a dry run check the models too. Raises ConfigError.

    `command` are Snakemake's arguments. A real run checks the models when it begins (`begin`).
    """
    check_sources(config, say=lambda line: _say([line]))
    if is_dry(command):
        local = not any(word.startswith(ELSEWHERE) for word in command)
        check_gpus(config, local)
        _say(look_ahead(config, local))


def sources(config: Config) -> list[str]:
    """Return what `check_sources` says of a config's files, packages and prompt sets.

    This is for a plan, which is made even if a run could not begin.
    """
    said: list[str] = []
    try:
        check_sources(config, say=said.append)
    except ConfigError as error:
        said += [f"WARNING: a run would not begin: {problem}" for problem in error.problems]
    return said


def is_dry(command: Sequence[str]) -> bool:
    """Return whether Snakemake's arguments ask for a dry run."""
    return any(map(DRY.fullmatch, command))


def look_ahead(config: Config, local: bool, online: bool = True, made: "Estimate | None" = None) -> list[str]:
    """Return lines about a config before a run: notes on its models, and its time and disk space.

    With `online`, models on the hub are checked if it answers. `local`: jobs will run on this
    machine. `made` is the estimate of the config's cost, if one exists. Raises ConfigError.
    """
    hub = any(model.hub for model in config.models.values())
    answers = hub and online and hub_answers()
    unseen = ["models of the hub are not looked at: the hub does not answer"] * (
        hub and online and not answers
    )
    said = unseen + _look_at_models(config, hub=answers) + slow_engines(config, local)
    return said + costs(config, local, online=answers, made=made)


def costs(
    config: Config, local: bool, online: bool, *, refuse: bool = False, made: "Estimate | None" = None
) -> list[str]:
    """Return the time and disk space that the rest of a run takes in this folder.

    With `refuse` an ExpoflowError is raised if a disk is too small. The other arguments are those
    of `look_ahead`.
    """
    from expoflow.project import disk, estimate, throughput

    try:
        made = made or estimate.plan(config, online=online)
        said = throughput.lines(config, made, local)
    except (ExpoflowError, OSError) as error:  # an unknown size must not stop a run
        return [f"time and disk are not known: {str(error).partition(chr(10))[0]}"]
    return said + disk.check(config, made, refuse=refuse)


def _look_at_models(config: Config, hub: bool) -> list[str]:
    """Check the models and pairs, and return notes on them.

    The models must fit together and be runnable, the prompts must reach them, and the pairs must
    not look like a slip. With `hub`, models on the hub are checked too, by their headers and small
    files, before any download. One ConfigError lists all problems.
    """
    from expoflow.checks.pairs import check_pairs
    from expoflow.checks.slips import check_slips

    problems, notes = [], []
    checks = (
        lambda: check_pairs(config, hub=hub) or [],
        lambda: check_models(config, hub=hub),
        lambda: check_slips(config),
    )
    for check in checks:
        try:
            notes += check()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return notes


def begin(
    config: Config,
    command: Sequence[str],
    folder: Path,
    *,
    cores: int | None,
    cluster: bool = False,
    touch: bool = False,
    whole: bool = True,
) -> None:
    """Make sure that a run can begin in `folder`, and announce this process to its jobs.

    The judges' keys must be set, and models must be usable (those on the hub are checked by their
    headers). No job of a killed run may still be at work here. A run that only touches files needs
    none of this. `command` are Snakemake's arguments, with which the run can be resumed. The jobs
    of a local run on `cores` cores share engines (`hosts`). Jobs of a `cluster` have their own, as
    do all jobs if `cores` is None. A `whole` run, one of all results, does not begin if a disk is
    too small for it. Raises ExpoflowError.
    """
    store.use()
    if any(map(FORCED.fullmatch, command)):
        kept.forget()
    if not touch:
        check_keys(config)
        try:
            check_gpus(config, local=cores is not None)
            _say(_look_at_models(config, hub=True))
        except ConfigError as error:
            raise ExpoflowError(f"nothing was done:\n{error}") from None
        online = _is_to_come(config) and hub_answers()
        _say(costs(config, local=cores is not None, online=online, refuse=whole))
        resume.begin(command, folder, cluster=cluster)
        _say(slow_engines(config, local=cores is not None))
    announce(cores, asked=asked_gpus(config))


def begin_job(command: Sequence[str]) -> None:
    """Make a process that runs several jobs for another Snakemake the head of shared hosts.

    `command` are Snakemake's arguments. A process with one job stays as it is.
    """
    arguments = dropwhile(lambda word: word != "--target-jobs", command)
    jobs = [*takewhile(lambda word: not word.startswith("--"), islice(arguments, 1, None))]
    if len(jobs) > 1:
        from expoflow.hosts import keeper

        os.environ[kept.SHARED] = "1"
        keeper.announce_job(os.environ.get("SLURM_JOB_ID", str(os.getpid())))


def asked_gpus(config: Config, results: Results = RESULTS) -> dict[str, int]:
    """Return the numbers of GPUs that the config sets for models, by weight folder."""
    from huggingface_hub import constants

    needs = Needs(config, lambda name: 0)
    found: dict[str, int] = {}
    for name, model in config.models.items():
        if (said := needs.said_gpus(name)) is not None:
            hub = f"{constants.HF_HUB_CACHE}/models--{model.hub.replace('/', '--')}" if model.hub else None
            found[model.path or hub or str(weights(results.manifest(name)))] = said
    for name, pair in config.pairs.items():
        if (said := needs.said_gpus(pair.aligned)) is not None:
            found[str(results.pairs / name)] = said
    return found


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _is_to_come(config: Config, results: Results = RESULTS) -> bool:
    """Return whether a model or prompt set of the hub is still to be downloaded."""
    models = any(each.hub and not results.manifest(name).exists() for name, each in config.models.items())
    return models or any(
        each.hub and not results.prompts(name).exists() for name, each in config.prompts.items()
    )


def for_slurm(folder: Path = Path()) -> bool:
    """Return whether runs in a folder use SLURM: it is here, and the folder has its profile."""
    return bool(shutil.which("sbatch")) and (folder / SLURM_PROFILE).is_file()


def hub_answers() -> bool:
    """Return whether the hub may be asked and can be reached, after `PATIENCE` seconds at most."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True
