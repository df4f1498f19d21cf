"""The settings of `accelerate launch` that jobs and checks depend on."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REMEDY = "correct the file"


@dataclass(frozen=True)
class Launcher:
    """The processes that are started. A setting with a problem is ignored.

    With `cpu` the `processes` have no GPU. `offloads`: DeepSpeed keeps optimiser states in main
    memory.
    """

    processes: int = 1
    cpu: bool = False
    deepspeed: bool = False
    offloads: bool = False
    problems: tuple[str, ...] = ()
    """The problems found, one line each with the remedy."""


@cache
def read_launcher(path: Path) -> Launcher:
    """The settings of a file, which may have any content."""
    problems: list[str] = []
    settings = _mapping(path, json.loads if path.suffix == ".json" else yaml.safe_load, problems)

    def given(name: str, default: Any, wanted: str, fine: Any) -> Any:
        value = settings.get(name, default)
        if fine(value):
            return value
        problems.append(f"{path.name} has {name}: {value!r}, which must be {wanted}; {REMEDY}")
        return default

    processes = given(
        "num_processes", 1, "a number from 1 on", lambda value: type(value) is int and value > 0
    )
    cpu = given("use_cpu", False, "true or false, without quotes", lambda value: type(value) is bool)
    own = given("deepspeed_config", None, "a mapping", lambda value: isinstance(value, Mapping | None))
    deepspeed = settings.get("distributed_type") == "DEEPSPEED"
    offloads = deepspeed and _offloads(own or {}, problems)
    return Launcher(processes, cpu, deepspeed, offloads, tuple(problems))


def _offloads(own: Mapping[str, Any], problems: list[str]) -> bool:
    """Whether DeepSpeed keeps optimiser states in main memory. If DeepSpeed's own file is named, it
    alone decides."""
    if (named := own.get("deepspeed_config_file")) is None:
        return own.get("offload_optimizer_device") not in (None, "none")
    whole = _mapping(Path(str(named)), json.loads, problems)
    zero = _section(whole, "zero_optimization", named, problems)
    optimiser = _section(zero, "offload_optimizer", named, problems)
    return optimiser.get("device", "none") != "none" or zero.get("cpu_offload") is True


def _section(whole: Mapping[str, Any], name: str, file: str, problems: list[str]) -> Mapping[str, Any]:
    if isinstance(found := whole.get(name) or {}, Mapping):
        return found
    problems.append(f"{file} has {name}: {found!r}, which must be a mapping; {REMEDY}")
    return {}


def _mapping(path: Path, parse: Callable[[str], Any], problems: list[str]) -> Mapping[str, Any]:
    """The content of a file; empty if it is not a mapping."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        problems.append(f"cannot read the launcher's settings ({reason}); correct the path or the file")
        return {}
    if isinstance(found, Mapping):
        return found
    problems.append(f"{path.name} must be a mapping, such as `num_processes: 1`; {REMEDY}")
    return {}
