"""`expoflow status`, `plan` and `clean`: what there is, and what is to come."""

import argparse
import shutil
import sys
from pathlib import Path

from expoflow.errors import ConfigError
from expoflow.paths import Results


def plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--configfile", type=Path, required=True, metavar="FILE", help="the config")
    parser.add_argument(
        "--offline", action="store_true", help="do not ask the hub for sizes: guess them by the models' names"
    )


def plan(arguments: argparse.Namespace) -> int:
    from expoflow.project import begin, estimate, folder

    config = folder.read_config_file(arguments.configfile)
    asked = any(each.hub for each in (*config.models.values(), *config.prompts.values()))
    online = asked and not arguments.offline and begin.hub_answers()
    made = estimate.plan(config, online=online)
    print("\n".join(estimate.lines(made)))
    local = shutil.which("sbatch") is None  # else the jobs are a cluster's
    for line in begin.look_ahead(config, local, online=not arguments.offline, made=made):
        print(line)
    return 0


def status(arguments: argparse.Namespace) -> int:
    from expoflow.project import status
    from expoflow.project.folder import read_config

    folder = arguments.folder
    config = read_config(folder)
    lines = [("run", status.state(folder))]
    for stage, files in status.stages(config).items():
        missing = [name for name in files if not (folder / name).exists()]
        rest = f"; missing: {missing[0]}" + (", ..." if len(missing) > 1 else "") if missing else ""
        lines.append((stage, f"{len(files) - len(missing)} of {len(files)}{rest}"))
    results = Results.of(folder)
    parts = [(path, status.size(path)) for path in (results.models, results.pairs)]
    lines += [(str(path), _megabytes(size)) for path, size in [*parts, *status.held()]]
    width = max(len(label) for label, _ in lines)
    print("\n".join(f"{label:{width}}  {text}" for label, text in lines))
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def clean_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="remove without asking")


def clean(arguments: argparse.Namespace) -> int:
    from expoflow import store
    from expoflow.project import status

    held = list(status.held())
    print(
        "\n".join(f"{path}  {_megabytes(size)}" for path, size in held) or f"{store.root()}: nothing to free"
    )
    if not held:
        return 0
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ConfigError(["nothing was removed; say so with --yes"])
        if input("Remove these? No finished result needs them. [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    status.free()
    print(f"freed {_megabytes(sum(size for _, size in held))}")
    return 0
