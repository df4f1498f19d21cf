"""A folder with a config, and the workflow that is run in it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from expoflow import checks
from expoflow.checks import plain_yaml
from expoflow.config import Config
from expoflow.errors import ConfigError
from expoflow.system.installed import workflow_folder


def read_config(folder: Path) -> Config:
    """The config of the project in `folder`, where `expoflow run` or the Snakefile looks for it."""
    places = [folder / "config.yaml", folder / "config" / "config.yaml"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ConfigError([f"{folder}: no config.yaml; name a project's folder, or begin one: expoflow init"])
    return read_config_file(path, folder)


def read_config_file(path: Path, folder: Path = Path()) -> Config:
    """The config in a YAML file; relative paths in it are relative to `folder`."""
    try:
        plain_yaml.check_files([path])
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); correct the path"]) from None
    return checks.parse(data if isinstance(data, dict) else {}, folder)


CONFIG = "config.yaml"


def run_workflow(config: Path, folder: Path, arguments: Sequence[str]) -> NoReturn:
    """Run Snakemake on `config` in `folder`, show the run, and end as it ends; `arguments` are Snakemake's own, and win.

    Of a dry run its output is shown as it is. Raises ConfigError.
    """
    from expoflow.project import show
    from expoflow.project.begin import DRY

    command = [sys.executable, "-m", "snakemake", "--snakefile", str(workflow_folder() / "Snakefile")]
    command += ["--configfile", str(config.absolute()), "--directory", str(folder.absolute())]
    if not any(each.startswith(("--profile", "--executor")) for each in arguments):  # a cluster sets its own
        command += ["--cores", "all"]
    command += arguments
    sys.stdout.flush()
    if DRY.intersection(arguments):
        os.execv(sys.executable, command)
    _require_writable(folder)
    sys.exit(show.run(command, folder))


def _require_writable(folder: Path) -> None:
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            [f"{folder}: cannot be written to; make it writable, or name another folder with --out"]
        )
