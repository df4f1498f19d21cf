"""`expoflow completion`: a script that makes a shell complete commands, options and paths."""

import argparse

SHELLS = ("bash", "zsh", "tcsh")


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that the script is for")


def completion(arguments: argparse.Namespace) -> int:
    import shtab

    from expoflow.cli import whole_parser

    parser = whole_parser()
    for each in commands(parser).values():
        for action in each._actions:
            if action.metavar == "DIR":
                action.complete = shtab.DIRECTORY
            elif action.metavar in ("MODEL", "PROMPTS") or str(action.metavar).startswith(("FILE", "RUN")):
                action.complete = shtab.FILE
    print(shtab.complete(parser, arguments.shell))
    return 0


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by name."""
    (group,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return dict(group.choices)
