"""`expoflow status`, `plan` and `clean`: what a run has made, and what it will take."""

import argparse
import shutil
import sys
from pathlib import Path

from expoflow.cli.arguments import folder_of, project_arguments, project_of
from expoflow.cli.run import request_arguments, requested
from expoflow.errors import ConfigError
from expoflow.paths import Results


def plan_arguments(parser: argparse.ArgumentParser) -> None:
    request_arguments(parser)
    parser.add_argument(
        "--offline",
        action="store_true",
        help="do not ask the hub for sizes; guess them from the models' names",
    )


def plan(arguments: argparse.Namespace) -> int:
    from expoflow.project import begin, estimate

    project, said = requested(arguments)
    for line in said:
        print(f"expoflow: {line}", file=sys.stderr)
    with project.entered() as config:
        asked = any(each.hub for each in (*config.models.values(), *config.prompts.values()))
        online = asked and not arguments.offline and begin.hub_answers()
        made = estimate.plan(config, online=online)
        print("\n".join(estimate.lines(made)))
        local = not begin.for_slurm()
        for line in begin.sources(config):
            print(line)
        for line in begin.look_ahead(config, local, online=not arguments.offline, made=made):
            print(line)
    return 0


def status_arguments(parser: argparse.ArgumentParser) -> None:
    project_arguments(parser)
    parser.add_argument("--watch", action="store_true", help="show the current run until it ends")


def status(arguments: argparse.Namespace) -> int:
    from expoflow.project import show, status
    from expoflow.project.display import Board
    from expoflow.reporting.run_end import Ran, closing_words

    project = project_of(arguments)
    folder, config = project.folder, project.read()
    if arguments.watch:
        show.watch(folder)
    lines = [("run", status.state(folder))]
    board = Board(folder)
    if show.at_work(board):
        lines.append(("so far", board.sentence()))
        lines += [("now", f"{board.label(job)}: {board.detail(job)}") for job in board.at_work()]
    elif board.run and board.run.ending:
        lines.append(("last run", board.sentence()))
    whole = True
    for stage, files in status.stages(config).items():
        missing = [name for name in files if not (folder / name).exists()]
        rest = f"; missing: {missing[0]}" + (", ..." if len(missing) > 1 else "") if missing else ""
        lines.append((stage, f"{len(files) - len(missing)} of {len(files)}{rest}"))
        whole = whole and not missing
    results = Results.of(folder)
    parts = [(path, status.size(path)) for path in (results.models, results.pairs)]
    lines += [(str(path), _megabytes(size)) for path, size in [*parts, *status.held()]]
    width = max(len(label) for label, _ in lines)
    print("\n".join(f"{label:{width}}  {text}" for label, text in lines))
    if whole:
        ran = Ran(config, project.config.absolute(), Path.cwd(), None)
        with project.entered():
            print(closing_words(ran=ran))
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def clean_arguments(parser: argparse.ArgumentParser) -> None:
    project_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="remove without asking")


def clean(arguments: argparse.Namespace) -> int:
    from expoflow import store
    from expoflow.project import status
    from expoflow.project.create import rehearsals

    rehearsed = rehearsals(folder_of(arguments) or Path())
    if rehearsed and status.locked(rehearsed[0]):
        raise ConfigError([f"{rehearsed[0]}: a rehearsal is running there; wait until it ends, or stop it"])
    held = [*status.held(), *((each, status.size(each)) for each in rehearsed)]
    print(
        "\n".join(f"{path}  {_megabytes(size)}" for path, size in held) or f"{store.root()}: nothing to free"
    )
    if not held:
        return 0
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ConfigError(["nothing was removed; confirm with --yes"])
        if input("Remove these? No finished result needs them. [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    status.free()
    for each in rehearsed:
        shutil.rmtree(each)
    print(f"freed {_megabytes(sum(size for _, size in held))}")
    return 0
