"""The command `expoflow`: a table of small functions `(arguments) -> exit status`."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from types import FrameType
from typing import NoReturn

from expoflow import __version__
from expoflow.cli.arguments import folder_arguments
from expoflow.cli.chat import chat, chat_arguments
from expoflow.cli.completion import commands, completion, completion_arguments
from expoflow.cli.doctor import doctor, doctor_arguments
from expoflow.cli.extrapolate import (
    extrapolate,
    extrapolate_arguments,
    inspect,
    inspect_arguments,
    preflight,
    preflight_arguments,
)
from expoflow.cli.publish import publish, publish_arguments
from expoflow.cli.results import benchmark, benchmark_arguments, claims, claims_arguments
from expoflow.cli.run import init, resume, resume_arguments, run, run_arguments
from expoflow.cli.status import clean, clean_arguments, plan, plan_arguments, status, status_arguments
from expoflow.errors import ExpoflowError
from expoflow.system import collector
from expoflow.system.last_words import last_words

Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]


COMMANDS: dict[str, Command] = {
    "run": ("run a pair from two checkpoints to the report, or run any config", run_arguments, run),
    "init": ("write a starter config for pairs of your own", folder_arguments, init),
    "doctor": (
        "check in a few seconds what this machine can do, and what it lacks",
        doctor_arguments,
        doctor,
    ),
    "plan": ("estimate what a run would cost, before it starts", plan_arguments, plan),
    "chat": ("ask a run's model questions at two alphas and compare the answers", chat_arguments, chat),
    "resume": (
        "continue a run that was killed; finished jobs are not repeated",
        resume_arguments,
        resume,
    ),
    "status": ("show how far a run is, and what it keeps on the disk", status_arguments, status),
    "clean": ("free the store; no finished result needs its contents", clean_arguments, clean),
    "publish": (
        "upload a run's exported model to the Hugging Face hub, with a model card that states the evidence",
        publish_arguments,
        publish,
    ),
    "extrapolate": (
        "write theta2 = theta1 + alpha * (theta1 - theta0) as a checkpoint",
        extrapolate_arguments,
        extrapolate,
    ),
    "preflight": (
        "check whether two checkpoints can be extrapolated, by headers, configs and a sample of the weights",
        preflight_arguments,
        preflight,
    ),
    "benchmark": (
        "compute a benchmark's figures from existing verdicts, as JSON",
        benchmark_arguments,
        benchmark,
    ),
    "claims": (
        "test the paper's claims over several runs (seeds), and write a page with figures",
        claims_arguments,
        claims,
    ),
    "completion": (
        "print a script that makes a shell complete commands and options",
        completion_arguments,
        completion,
    ),
    "inspect": ("describe a checkpoint, and verify an extrapolated one", inspect_arguments, inspect),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    If the user can solve a problem, the status is 2 and standard error has a line about it.
    """
    _open_streams()
    given, behind = _parted(sys.argv[1:] if argv is None else argv)
    parser = _parser(given)
    arguments, unknown = parser.parse_known_args(given)
    if unknown:
        _refuse(parser, arguments.command, unknown)
    if behind is not None and arguments.command != "run":
        parser.error(f"{arguments.command} takes no arguments after --")
    arguments.snakemake = behind or []
    signal.signal(signal.SIGTERM, _terminate)
    collector.relax()
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError as error:
        if not _unread():  # another pipe or connection
            return _failed(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # output still in the buffer goes there
        return 128 + signal.SIGPIPE
    except ExpoflowError as error:
        for line in str(error).splitlines():
            print(f"expoflow: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("expoflow: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    except Exception as error:
        return _failed(error)


def _open_streams() -> None:
    """Make standard output and error accept any text.

    Characters that their encoding lacks are escaped. A stream that was closed writes to /dev/null.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:  # or the next file gets a closed one's number
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (stays open for the life of the process)
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser with the arguments of all commands."""
    return _parser(COMMANDS)


def _parser(wanted: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser. Only commands in `wanted` get arguments, which import the config."""
    parser = argparse.ArgumentParser(
        prog="expoflow",
        allow_abbrev=False,
        description="Better-aligned models by extrapolation (ExPO).",
        epilog="Exit status: 0 done; 1 jobs or a check failed; 2 something to correct, named in the last lines; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"expoflow {__version__}")
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, add_arguments, function) in COMMANDS.items():
        command = group.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name in wanted:
            add_arguments(command)
        command.set_defaults(run=function)
    return parser


def _refuse(parser: argparse.ArgumentParser, name: str, unknown: Sequence[str]) -> NoReturn:
    """Exit with the unknown arguments, each with the most similar option of the command."""
    command = commands(parser)[name]
    options = [option for action in command._actions for option in action.option_strings]
    said = []
    for each in unknown:
        near = get_close_matches(each.partition("=")[0], options, 1) if each.startswith("-") else []
        said.append(f"{each} (did you mean {near[0]}?)" if near else each)
    command.error(f"unknown: {', '.join(said)}")


def _parted(given: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Split the arguments at `--`; those after it are snakemake's (None if there is no `--`)."""
    place = given.index("--") if "--" in given else len(given)
    return [*given[:place]], [*given[place + 1 :]] if place < len(given) else None


def _failed(error: Exception) -> int:
    """Print an unexpected error; return the exit status, which is 2 if the user can solve it."""
    trace, line = last_words(error, "the lines above")
    print(f"{trace}expoflow: {line}", file=sys.stderr)
    return 1 if trace else 2


def _unread() -> bool:
    """Return whether the reader of standard output has gone, as after `| head`."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # an exception, so that temporary folders are removed
