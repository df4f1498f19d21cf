"""A user's project: a folder with a config.yaml. The workflow runs there and makes results/."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from expoflow import checks
from expoflow.checks import machine
from expoflow.config.stages import WITHOUT_REWARDS
from expoflow.errors import ConfigError, ExpoflowError
from expoflow.extrapolation.preflight import open_pair
from expoflow.files.atomic import write_text
from expoflow.paths import Results
from expoflow.project.folder import CONFIG, Project
from expoflow.project.located import located
from expoflow.system.installed import workflow_folder

NO_RESULTS = Results(Path(os.devnull))  # so that every source is checked
HUB = re.compile(r"(?P<hub>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
HEADER = """\
# One pair, as `expoflow run` was asked for it. Change what you like and run again: expoflow run --config config.yaml
# Relative paths are relative to this folder. `expoflow init` writes a starter that says more.
"""
COPY = "# A copy that `expoflow run` writes anew, with absolute paths. Change the config that it is made of:"
PAPER_ALPHAS = "0.1,0.2,0.3,0.4,0.5"
ALPHAS = re.compile(r"^([^#\n]*\balphas: *)\[[^\]]*\]", re.MULTILINE)  # not in a comment
REHEARSAL = "rehearsal"  # the rehearsal's folder, inside the run's
COMMENTS = {
    "models": "sft: the model before alignment; reward: a sequence classifier with one logit. path: DIR, or hub: ORG/NAME",
    "select": "nll: the largest alpha whose responses are at least as likely under the aligned model, per token, as its own; reward needs reward_model",
    "pairs": "the alphas always include 0 (aligned) and -1 (sft)",
    "prompts": "dev chooses alpha, test judges the choice. file: JSON lines, CSV or Parquet (docs/data.md), or hub: ORG/NAME with split",
    "generate": "keys that are left out have the paper's values: temperature 0.7, top_k 40, top_p 0.9, penalties 0.1",
    "extrapolate": "streamed: the sweep writes no weights, and only the chosen model is stored",
    "benchmarks": "sft, aligned and expo on prompts that took no part in the choice",
}


@dataclass(frozen=True)
class Request:
    """What `expoflow run` is asked for, as text: folders or files, or hub ids."""

    sft: str
    aligned: str
    reward_model: str | None
    alphas: str | None
    """If None: the alphas of the config, or else the paper's."""
    prompts: str
    test_prompts: str | None = None
    field: str | None = None
    generate: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The keys of the section `generate` that the command line sets."""

    @property
    def name(self) -> str:
        """The pair's name: the aligned model's, with invalid characters replaced."""
        name = Path(source(self.aligned).get("hub") or os.path.abspath(self.aligned)).name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-") or "pair"

    def config(self) -> dict[str, Any]:
        """Return the config for this request, as plain data with absolute paths."""
        models = {"sft": self.sft, "aligned": self.aligned}
        models |= {"reward": self.reward_model} if self.reward_model else {}
        prompts = {"dev": self.prompts} | ({"test": self.test_prompts} if self.test_prompts else {})
        field = {"field": self.field} if self.field else {}
        config = {
            "models": {name: source(model) for name, model in models.items()},
            "pairs": {
                self.name: {
                    "sft": "sft",
                    "aligned": "aligned",
                    "alphas": _alphas(self.alphas or PAPER_ALPHAS),
                }
            },
            "prompts": {name: prompt_source(each) | field for name, each in prompts.items()},
            **({"reward_model": "reward"} if self.reward_model else {"select": {"by": WITHOUT_REWARDS}}),
            "generate": {"prompts": "dev", "max_tokens": 2048} | self.generate,
            "extrapolate": {"weights": "streamed"},
        }
        return config | ({"benchmarks": {"reward": {"prompts": "test"}}} if self.test_prompts else {})

    def asked(self) -> dict[str, Any]:
        """Return what the request determines of the config; the rest may be edited by hand."""
        wanted = self.config()
        asked = {key: wanted[key] for key in ("models", "pairs", "prompts", "reward_model") if key in wanted}
        del asked["pairs"][self.name]["alphas"]  # other alphas change no result (`with_alphas`)
        return asked | ({"generate": self.generate} if self.generate else {})


def prepare(request: Request, folder: Path) -> tuple[Project, list[str]]:
    """Return the project in `folder` for `request`, and lines about it. Nothing is written.

    An existing config is kept if it agrees with the request. If it differs, and `expoflow run`
    wrote it but has made no result from it yet, it is replaced. Any other difference is an error.
    All sources are checked, and one ConfigError lists all problems.
    """
    wanted, path = request.config(), folder / CONFIG
    project = Project(path, folder, folder, _commented(wanted))
    problems, said = _problems(lambda: checks.parse(wanted)), []
    if (folder.exists() and not folder.is_dir()) or (folder / "config.json").exists():
        problems.append(f"--out: '{folder}' is a file or a checkpoint; give a folder for config and results")
    elif path.exists():
        differences = [*_differences(request.asked(), _read(path), "")]
        if not differences:
            project = Project(path, folder, folder)
            if request.alphas:
                project, said = with_alphas(project, request.alphas)
        elif not project.was_run() and path.read_text(encoding="utf-8").startswith(HEADER):
            said = [f"{path}: has no results yet, and is rewritten: {each}" for each in differences]
        else:
            problems += [
                f"{path}: {each}; change it there and run: expoflow run --config {path}, or give another --out"
                for each in differences
            ]
    problems += _source_problems(wanted) if project.text else []
    if problems:
        raise ConfigError([*dict.fromkeys(problems)])
    return project, said


def with_alphas(project: Project, alphas: str) -> tuple[Project, list[str]]:
    """Return the project with other alphas for its only pair, and lines to print about it.

    The rest of its config stays as it is. Nothing is written. Raises ConfigError.
    """
    path, wanted = project.config, _alphas(alphas)
    if project.elsewhere:
        raise ConfigError([f"--alphas: {project.folder} has a copy of {path}; change the alphas there"])
    project.read()  # raises if the file is not a valid config
    pairs = _read(path)["pairs"]
    if len(pairs) > 1:
        raise ConfigError([f"--alphas: {path} has several pairs; change the alphas there"])
    ((name, pair),) = pairs.items()
    if pair["alphas"] == wanted:
        return project, []
    text = ALPHAS.sub(lambda found: found[1] + json.dumps(wanted), path.read_text(encoding="utf-8"))
    changed = yaml.safe_load(text)
    checks.parse(changed, project.base)
    if changed != _read(path) | {
        "pairs": {name: pair | {"alphas": wanted}}
    }:  # the alphas are written in another form
        raise ConfigError([f"--alphas: the alphas of {path} are not a list in one place; change them there"])
    said = f"{path}: the alphas of {name} were {pair['alphas']}, and are now {wanted}"
    return dataclasses.replace(project, text=text), [said]


def copied(project: Project, folder: Path, limit: int | None = None) -> Project:
    """Return `project` with a copy of its config for another folder. Nothing is written.

    With `limit` the copy is a rehearsal.
    """
    data = located(project.read(), project.base) | ({"limit": limit} if limit else {})
    path = folder / CONFIG
    if path.exists() and not _is_copy(path):
        raise ConfigError([f"{path}: is a different config; run that one, or give another --out"])
    text = yaml.safe_dump(data, sort_keys=False, width=1000, allow_unicode=True)
    return Project(path, folder, folder, f"{COPY}\n# {project.config.absolute()}\n{text}")


def rehearsal(project: Project, limit: int) -> Project:
    """Return a rehearsal of `project`, in its own folder, so it never mixes with the run."""
    return copied(project, project.folder / REHEARSAL, limit)


def rehearsals(folder: Path) -> list[Path]:
    """Return the rehearsal folder of the project in `folder`, as a list; empty if none exists."""
    return [folder / REHEARSAL] if _is_copy(folder / REHEARSAL / CONFIG) else []


def _is_copy(config: Path) -> bool:
    """Return whether `copied` wrote this config."""
    return config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(COPY)


def start(folder: Path) -> list[Path]:
    """Write the starter: config.yaml, its schema for editors, and the SLURM profile.

    Returns their paths. If one of the files exists, nothing is written. Raises ConfigError.
    """
    workflow = workflow_folder()
    starter = (workflow / "config/example.yaml").read_text(encoding="utf-8")
    command = "snakemake --cores all --configfile config/example.yaml"
    texts = {
        CONFIG: starter.replace(command, f"expoflow run --config {CONFIG}"),
        "schema.json": (workflow / "config/schema.json").read_text(encoding="utf-8"),
        "slurm/profile.yaml": (workflow / "slurm/profile.yaml").read_text(encoding="utf-8"),
    }
    if there := [folder / name for name in texts if (folder / name).exists()]:
        raise ConfigError([f"{path}: exists; remove it, or name another folder" for path in there])
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def source(model: str) -> dict[str, str]:
    """Return a model's entry: a hub id, unless it or its parent exists here or it is no id."""
    found = HUB.fullmatch(model)
    if found is None or Path(model).exists() or Path(model).parent.is_dir():
        return {"path": os.path.abspath(model)}
    return {key: value for key, value in found.groupdict().items() if value}


def as_text(source: dict[str, str]) -> str:
    """Return the text from which `source` makes this entry."""
    if "path" in source:
        return os.path.abspath(source["path"])
    return "@".join(filter(None, (source["hub"], source.get("revision"))))


def prompt_source(prompts: str) -> dict[str, str]:
    """Return a prompt set's entry: a split of a hub dataset, or a file if it exists."""
    name, _, split = prompts.rpartition(":")
    found = HUB.fullmatch(name)
    if found is None or Path(prompts).exists():
        return {"file": os.path.abspath(prompts)}
    return {key: value for key, value in found.groupdict().items() if value} | {"split": split}


def _alphas(text: str) -> list[Any]:
    """Return the numbers in ascending order.

    Other texts follow them unchanged; the check of the config reports them.
    """
    alphas = [_number(part.strip()) for part in text.split(",")]
    return sorted(alphas, key=lambda alpha: (isinstance(alpha, str), alpha))


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _source_problems(config: dict[str, Any]) -> list[str]:
    """Return the problems of folders and files, independent of the alphas."""
    pairs = {name: pair | {"alphas": [0.1]} for name, pair in config["pairs"].items()}
    problems = _problems(lambda: machine.check_sources(checks.parse(config | {"pairs": pairs}), NO_RESULTS))
    folders = [config["models"][name].get("path") for name in ("sft", "aligned")]
    told = any(folder and folder in problem for folder in folders for problem in problems)
    if all(folder and Path(folder).is_dir() for folder in folders) and not told:
        problems += _problems(lambda: open_pair(*map(Path, folders)).require())
    return problems


def _problems(check: Callable[[], Any]) -> list[str]:
    """Return the problems that `check` raises, one line per problem."""
    try:
        check()
    except ExpoflowError as error:
        return str(error).splitlines()
    return []


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            [f"{path}: not valid YAML ({' '.join(str(error).split())}); correct or remove it"]
        ) from None


def _differences(asked: Any, there: Any, where: str) -> Iterator[str]:
    """Yield the differences between the request and the config; the config may have more keys."""
    if isinstance(asked, dict) and isinstance(there, dict):
        for key, value in asked.items():
            yield from _differences(value, there.get(key), f"{where}.{key}" if where else key)
    elif asked != there:
        yield f"{where} is {_plain(there)}, but {_plain(asked)} was asked for"


def _plain(value: Any) -> str:
    """Return a value as the config spells it."""
    if value is None:
        return "not set"
    return str(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _commented(config: dict[str, Any]) -> str:
    """Return the config as YAML, with a comment above each section."""
    lines = [HEADER.rstrip()]
    for section, value in config.items():
        if section in COMMENTS:
            lines.append(f"# {COMMENTS[section]}")
        style = None if isinstance(value, dict) else False  # innermost values on one line
        lines.append(
            yaml.safe_dump(
                {section: value}, sort_keys=False, default_flow_style=style, width=1000, allow_unicode=True
            ).rstrip()
        )
    return "\n".join(lines) + "\n"
