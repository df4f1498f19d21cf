"""A folder with a config, in which the workflow runs."""

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from expoflow import checks
from expoflow.checks import plain_yaml
from expoflow.config import Config
from expoflow.errors import ConfigError
from expoflow.files.atomic import write_text
from expoflow.paths import RESULTS
from expoflow.project import resume
from expoflow.project.begin import is_dry
from expoflow.project.located import located
from expoflow.system.installed import workflow_folder

CONFIG = "config.yaml"
# Snakemake's table of jobs in a dry run, which comes before the jobs themselves.
COUNTED = re.compile(r"^Job stats:\n(.*?^total +\d+\n)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Project:
    """A config and the folder in which it is run. The folder may not exist yet.

    Relative paths in the config start at `base`. `text` is written to `config` before a run; it is
    None if the file is up to date.
    """

    config: Path
    folder: Path
    base: Path
    text: str | None = None

    @classmethod
    def find(cls, folder: Path | None, config: Path | None = None) -> "Project":
        """Return the project in a folder (by default this one), or of a config file.

        With `config` alone the project's folder is the file's. With both, the config is run in
        another folder. A folder's own config is config.yaml, or config/config.yaml as in a clone;
        relative paths in both start at the folder. Raises ConfigError.
        """
        if config is not None:
            if not config.is_file():
                raise ConfigError([f"--config: no file '{config}'; `expoflow init` writes a starter"])
            return cls(config, folder or config.parent, config.parent)
        folder = folder or Path()
        places = [folder / CONFIG, folder / "config" / CONFIG]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise ConfigError(
                [
                    f"{folder}: no {CONFIG}; name a project's folder, or start one: expoflow run --aligned MODEL, or expoflow init"
                ]
            )
        return cls(path, folder, folder)

    @property
    def elsewhere(self) -> bool:
        """Whether the config is in another folder than the run."""
        return self.folder.resolve() != self.base.resolve()

    def read(self) -> Config:
        """Return the config, validated. Raises ConfigError."""
        if self.text is not None:
            return checks.parse(yaml.safe_load(self.text), self.base)
        return read_config_file(self.config, self.base)

    @contextmanager
    def entered(self) -> Iterator[Config]:
        """Enter the project's folder, or an empty one if it does not exist, and yield the config.

        Its paths are absolute.
        """
        config = checks.parse(located(self.read(), self.base))
        with tempfile.TemporaryDirectory() as empty, chdir(self.folder if self.folder.is_dir() else empty):
            yield config

    def was_run(self) -> bool:
        """Return whether a run has made results of a pair in the folder, or is at work there."""
        last = resume.last_run(self.folder)
        if last and (last.alive() or last.host != socket.gethostname()):
            return True
        looked = RESULTS.preflight("*").relative_to(RESULTS.pairs)
        folder = self.folder / RESULTS.pairs
        return bool({*folder.glob("*/*")} - {*folder.glob(str(looked))})

    def run(self, arguments: Sequence[str], dry: bool = False) -> int:
        """Run the workflow with Snakemake's `arguments`; return its status. Raises ConfigError.

        A dry run writes nothing. With `dry` it counts the jobs; if Snakemake's own arguments ask
        for a dry run, it lists each job.
        """
        try:
            os.path.abspath(self.folder).encode()
        except UnicodeEncodeError:
            raise ConfigError(
                [f"{self.folder}: its name is not UTF-8; name another folder with --out"]
            ) from None
        if dry or is_dry(arguments):
            return self._run_dry(arguments, dry)
        if self.text is not None:
            self._write()
        return run_workflow(self.config, self.folder, arguments)

    def _run_dry(self, arguments: Sequence[str], counted: bool) -> int:
        with tempfile.TemporaryDirectory() as scratch:
            config, folder = self.config, self.folder if self.folder.is_dir() else Path(scratch)
            if self.text is not None:
                config = Path(scratch) / CONFIG
                write_text(config, self.text)
            sys.stdout.flush()
            if not counted:
                return subprocess.run(snakemake(config, folder, arguments)).returncode
            command = snakemake(config, folder, [*arguments, "--dry-run"])
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, errors="replace")
        found = COUNTED.search(done.stdout) if done.returncode == 0 else None
        print(found[1] if found else done.stdout, end="")
        return done.returncode

    def _write(self) -> None:
        """Write the config; an existing one that differs is kept as a backup beside it."""
        if self.config.exists() and self.config.read_text(encoding="utf-8", errors="replace") != self.text:
            self.config.replace(self.config.with_name(f"{CONFIG}.old"))
        write_text(self.config, self.text)


def read_config(folder: Path) -> Config:
    """Return the config of the project in `folder`."""
    return Project.find(folder).read()


def read_config_file(path: Path, folder: Path = Path()) -> Config:
    """Return the config in a YAML file; relative paths in it are relative to `folder`."""
    try:
        plain_yaml.check_files([path])
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); correct the path"]) from None
    return checks.parse(data if isinstance(data, dict) else {}, folder)


def snakemake(config: Path, folder: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs `config` in `folder`; Snakemake's own `arguments` win."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(workflow_folder() / "Snakefile")]
    command += ["--configfile", str(config.absolute()), "--directory", str(folder.absolute())]
    if not any(each.startswith(("--profile", "--executor")) for each in arguments):  # a cluster sets its own
        command += ["--cores", "all"]
    return [*command, *arguments]


def run_workflow(config: Path, folder: Path, arguments: Sequence[str]) -> int:
    """Run Snakemake on `config` in `folder`, show the run, and return its exit status.

    `arguments` are Snakemake's own.
    Raises ConfigError.
    """
    from expoflow.project import show

    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            [f"{folder}: cannot be written to; make it writable, or name another folder with --out"]
        )
    sys.stdout.flush()
    return show.run(snakemake(config, folder, arguments), folder)
