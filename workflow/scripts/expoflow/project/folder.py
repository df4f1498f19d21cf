"""A folder with a config, and the workflow that is run in it."""

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
# What Snakemake says of a dry run, before it names each job.
COUNTED = re.compile(r"^Job stats:\n(.*?^total +\d+\n)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Project:
    """A config and the folder that it is run in, which may not exist yet.

    Relative paths in the config begin at `base`. `text` is what is still to be written to `config` before a run; None if it is there.
    """

    config: Path
    folder: Path
    base: Path
    text: str | None = None

    @classmethod
    def find(cls, folder: Path | None, config: Path | None = None) -> "Project":
        """The project in a folder, by default this one, or of a config file, by default in its folder.

        Both say that a config is to be run in another folder. A folder's own config is config.yaml, or config/config.yaml as in a
        clone, whose relative paths begin at the folder too. Raises ConfigError.
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
                    f"{folder}: no {CONFIG}; name a project's folder, or begin one: expoflow run --aligned MODEL, or expoflow init"
                ]
            )
        return cls(path, folder, folder)

    @property
    def elsewhere(self) -> bool:
        """Whether the config lies in another folder than it is run in."""
        return self.folder.resolve() != self.base.resolve()

    def read(self) -> Config:
        """The config, checked. Raises ConfigError."""
        if self.text is not None:
            return checks.parse(yaml.safe_load(self.text), self.base)
        return read_config_file(self.config, self.base)

    @contextmanager
    def entered(self) -> Iterator[Config]:
        """The config with absolute paths, and the project's folder as the working directory; an empty one if it does not exist."""
        config = checks.parse(located(self.read(), self.base))
        with tempfile.TemporaryDirectory() as empty, chdir(self.folder if self.folder.is_dir() else empty):
            yield config

    def was_run(self) -> bool:
        """Whether a run has made anything of a pair in the folder, or is at work there."""
        last = resume.last_run(self.folder)
        if last and (last.alive() or last.host != socket.gethostname()):
            return True
        looked = RESULTS.preflight("*").relative_to(RESULTS.pairs)
        folder = self.folder / RESULTS.pairs
        return bool({*folder.glob("*/*")} - {*folder.glob(str(looked))})

    def run(self, arguments: Sequence[str], dry: bool = False) -> int:
        """Run the workflow; `arguments` are Snakemake's own. Its exit status. Raises ConfigError.

        In a dry run nothing is written. If `dry` asks for it, the jobs are counted; if Snakemake's own arguments do, each is named.
        """
        try:
            os.path.abspath(self.folder).encode()
        except UnicodeEncodeError:
            raise ConfigError(
                [f"{self.folder}: its name is no UTF-8; name another folder with --out"]
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
        """Write the config; another one that stands there is kept beside it."""
        if self.config.exists() and self.config.read_text(encoding="utf-8", errors="replace") != self.text:
            self.config.replace(self.config.with_name(f"{CONFIG}.old"))
        write_text(self.config, self.text)


def read_config(folder: Path) -> Config:
    """The config of the project in `folder`."""
    return Project.find(folder).read()


def read_config_file(path: Path, folder: Path = Path()) -> Config:
    """The config in a YAML file; relative paths in it are relative to `folder`."""
    try:
        plain_yaml.check_files([path])
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); correct the path"]) from None
    return checks.parse(data if isinstance(data, dict) else {}, folder)


def snakemake(config: Path, folder: Path, arguments: Sequence[str]) -> list[str]:
    """The command that runs `config` in `folder`; `arguments` are Snakemake's own, and win."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(workflow_folder() / "Snakefile")]
    command += ["--configfile", str(config.absolute()), "--directory", str(folder.absolute())]
    if not any(each.startswith(("--profile", "--executor")) for each in arguments):  # a cluster sets its own
        command += ["--cores", "all"]
    return [*command, *arguments]


def run_workflow(config: Path, folder: Path, arguments: Sequence[str]) -> int:
    """Run Snakemake on `config` in `folder` and show the run; `arguments` are Snakemake's own. Its exit status.

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
