"""The command `expoflow`: a table of small functions, each `(arguments) -> exit status`."""

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
    "run": ("one pair, from two checkpoints to the report", run_arguments, run),
    "init": ("write a starter config for pairs of your own", folder_arguments, init),
    "doctor": (
        "say in some seconds what this machine can do, and what would help it",
        doctor_arguments,
        doctor,
    ),
    "plan": ("say what a config would cost, before it is started", plan_arguments, plan),
    "chat": ("ask a run's models, at two alphas one above the other", chat_arguments, chat),
    "resume": (
        "go on with a run that was killed, without its jobs running twice",
        resume_arguments,
        resume,
    ),
    "status": ("say how far a project is, and what lies on the disk", status_arguments, status),
    "clean": ("free the store; no finished result needs what it holds", clean_arguments, clean),
    "publish": (
        "upload a run's exported model to the Hugging Face hub, with a card of the evidence",
        publish_arguments,
        publish,
    ),
    "extrapolate": (
        "theta2 = theta1 + alpha * (theta1 - theta0), written as a checkpoint",
        extrapolate_arguments,
        extrapolate,
    ),
    "preflight": (
        "can two checkpoints be extrapolated? Reads headers, configs and a sample of the weights",
        preflight_arguments,
        preflight,
    ),
    "benchmark": (
        "figures of a benchmark from verdicts that are there already, as JSON",
        benchmark_arguments,
        benchmark,
    ),
    "claims": (
        "the paper's claims over several runs (seeds), as a page with figures",
        claims_arguments,
        claims,
    ),
    "completion": (
        "print what makes a shell complete commands and options",
        completion_arguments,
        completion,
    ),
    "inspect": ("say what a checkpoint is, and check an extrapolated one", inspect_arguments, inspect),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; 2 and a line on standard error for a problem that the user can solve."""
    _open_streams()
    given, behind = _parted(sys.argv[1:] if argv is None else argv)
    parser = _parser(given)
    arguments, unknown = parser.parse_known_args(given)
    if unknown:
        _refuse(parser, arguments.command, unknown)
    if behind is not None and arguments.command != "run":
        parser.error(f"{arguments.command} takes no arguments behind --")
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left to be written
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
    """Standard output and error take every name: what they have no letters for is escaped, and what was closed is read by nobody."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:  # else the next file has the number of a closed one
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open as long as the process lives)
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def whole_parser() -> argparse.ArgumentParser:
    """The parser with the arguments of all commands."""
    return _parser(COMMANDS)


def _parser(wanted: Collection[str]) -> argparse.ArgumentParser:
    """The parser; only commands in `wanted` have their arguments, for which the config is imported."""
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
    """End with what a command does not know, and what it has that is spelled alike."""
    command = commands(parser)[name]
    options = [option for action in command._actions for option in action.option_strings]
    said = []
    for each in unknown:
        near = get_close_matches(each.partition("=")[0], options, 1) if each.startswith("-") else []
        said.append(f"{each} (did you mean {near[0]}?)" if near else each)
    command.error(f"unknown: {', '.join(said)}")


def _parted(given: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The arguments before `--`, and those behind it, which are snakemake's; None without it."""
    place = given.index("--") if "--" in given else len(given)
    return [*given[:place]], [*given[place + 1 :]] if place < len(given) else None


def _failed(error: Exception) -> int:
    """Say what nobody foresaw; the exit status, 2 if its user can solve it."""
    trace, line = last_words(error, "the lines above")
    print(f"{trace}expoflow: {line}", file=sys.stderr)
    return 1 if trace else 2


def _unread() -> bool:
    """Whether nobody reads standard output any more, as behind `| head`."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # an exception, so that temporary folders are removed
