"""A user's project: a folder with a config.yaml, in which the workflow is run and makes results/."""

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
from expoflow.project.folder import CONFIG
from expoflow.system.installed import workflow_folder

NO_RESULTS = Results(Path(os.devnull))  # every source is looked at
HUB = re.compile(r"(?P<hub>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
HEADER = """\
# One pair, as `expoflow run` was asked for it. Change what you like and run again: expoflow run --config config.yaml
# Relative paths are relative to this folder. `expoflow init` writes a starter that says more.
"""
COMMENTS = {
    "models": "sft: what alignment began with; reward: a sequence classifier with one logit. path: DIR, or hub: ORG/NAME",
    "select": "nll: the largest alpha whose responses are no less likely under the aligned model; reward needs reward_model",
    "pairs": "0 (aligned) and -1 (sft) are always among the alphas",
    "prompts": "dev chooses alpha, test judges the choice. file: JSON lines, CSV or Parquet (docs/data.md), or hub: ORG/NAME with split",
    "generate": "what does not stand here is the paper's: temperature 0.7, top_k 40, top_p 0.9, penalties 0.1",
    "extrapolate": "streamed: the sweep writes no weights, only the chosen model is stored",
    "benchmarks": "sft, aligned and expo on prompts that took no part in the choice",
}


@dataclass(frozen=True)
class Request:
    """What `expoflow run` is asked for: models as folders or hub ids, prompts as files or hub datasets, as texts."""

    sft: str
    aligned: str
    reward_model: str | None
    alphas: str
    prompts: str
    test_prompts: str | None = None

    @property
    def name(self) -> str:
        """The pair's name: the aligned model's, without what a name may not have."""
        name = Path(source(self.aligned).get("hub") or os.path.abspath(self.aligned)).name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-") or "pair"

    def config(self) -> dict[str, Any]:
        """The config that says it, as plain data with absolute paths."""
        models = {"sft": self.sft, "aligned": self.aligned}
        models |= {"reward": self.reward_model} if self.reward_model else {}
        prompts = {"dev": self.prompts} | ({"test": self.test_prompts} if self.test_prompts else {})
        config = {
            "models": {name: source(model) for name, model in models.items()},
            "pairs": {self.name: {"sft": "sft", "aligned": "aligned", "alphas": _alphas(self.alphas)}},
            "prompts": {name: prompt_source(each) for name, each in prompts.items()},
            **({"reward_model": "reward"} if self.reward_model else {"select": {"by": WITHOUT_REWARDS}}),
            "generate": {"prompts": "dev", "max_tokens": 2048},
            "extrapolate": {"weights": "streamed"},
        }
        return config | ({"benchmarks": {"reward": {"prompts": "test"}}} if self.test_prompts else {})


def prepare(request: Request, folder: Path) -> Path:
    """Write the config that `request` stands for to `folder` unless it says so already; returns its path.

    Before anything is written all sources are looked at; all problems are in one ConfigError.
    """
    wanted, path = request.config(), folder / CONFIG
    problems = _problems(lambda: checks.parse(wanted))
    if (folder.exists() and not folder.is_dir()) or (folder / "config.json").exists():
        problems.append(f"--out: '{folder}' is a file or a checkpoint; give a folder for config and results")
    elif path.exists():
        keys = ("models", "pairs", "prompts", "reward_model")
        asked = {key: wanted[key] for key in keys if key in wanted}
        problems += [
            f"{path}: {difference}; change it there and run: expoflow run --config {path}, or give another --out"
            for difference in _differences(asked, _read(path), "")
        ]
    else:
        problems += _source_problems(wanted)
    if problems:
        raise ConfigError([*dict.fromkeys(problems)])
    if not path.exists():
        write_text(path, _commented(wanted))
    return path


def start(folder: Path) -> list[Path]:
    """Write the starter: config.yaml, its schema for editors, and the SLURM profile; returns their paths.

    Where one of the files exists, nothing is written.
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
    """A model's entry: a folder, or a hub id where there is no such folder, nor one named like its ORG."""
    found = HUB.fullmatch(model)
    if found is None or Path(model).exists() or Path(model).parent.is_dir():
        return {"path": os.path.abspath(model)}
    return {key: value for key, value in found.groupdict().items() if value}


def as_text(source: dict[str, str]) -> str:
    """What `source` makes this entry of."""
    if "path" in source:
        return os.path.abspath(source["path"])
    return "@".join(filter(None, (source["hub"], source.get("revision"))))


def prompt_source(prompts: str) -> dict[str, str]:
    """A prompt set's entry: a file, or a split of a hub's dataset where there is no such file."""
    name, _, split = prompts.rpartition(":")
    found = HUB.fullmatch(name)
    if found is None or Path(prompts).exists():
        return {"file": os.path.abspath(prompts)}
    return {key: value for key, value in found.groupdict().items() if value} | {"split": split}


def _alphas(text: str) -> list[Any]:
    """Numbers in ascending order; what is none stays a text behind them, for the config's check to tell."""
    alphas = [_number(part.strip()) for part in text.split(",")]
    return sorted(alphas, key=lambda alpha: (isinstance(alpha, str), alpha))


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _source_problems(config: dict[str, Any]) -> list[str]:
    """What is wrong with folders and files, whatever the alphas are like."""
    pairs = {name: pair | {"alphas": [0.1]} for name, pair in config["pairs"].items()}
    problems = _problems(lambda: machine.check_sources(checks.parse(config | {"pairs": pairs}), NO_RESULTS))
    folders = [config["models"][name].get("path") for name in ("sft", "aligned")]
    told = any(folder and folder in problem for folder in folders for problem in problems)
    if all(folder and Path(folder).is_dir() for folder in folders) and not told:
        problems += _problems(lambda: open_pair(*map(Path, folders)).require())
    return problems


def _problems(check: Callable[[], Any]) -> list[str]:
    """What `check` raises, one line a problem."""
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
            [f"{path}: no YAML ({' '.join(str(error).split())}); correct or remove it"]
        ) from None


def _differences(asked: Any, there: Any, where: str) -> Iterator[str]:
    """Where what is asked is not what is there; more may be there than is asked."""
    if isinstance(asked, dict) and isinstance(there, dict):
        for key, value in asked.items():
            yield from _differences(value, there.get(key), f"{where}.{key}" if where else key)
    elif asked != there:
        yield f"{where} is {there}, asked is {asked}"


def _commented(config: dict[str, Any]) -> str:
    """The config as YAML, with what a user wants to know beside its sections."""
    lines = [HEADER.rstrip()]
    for section, value in config.items():
        if section in COMMENTS:
            lines.append(f"# {COMMENTS[section]}")
        style = None if isinstance(value, dict) else False  # the innermost in one line
        lines.append(
            yaml.safe_dump(
                {section: value}, sort_keys=False, default_flow_style=style, width=1000, allow_unicode=True
            ).rstrip()
        )
    return "\n".join(lines) + "\n"
