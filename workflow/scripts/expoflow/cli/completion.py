"""`expoflow completion`: what makes a shell complete commands, options, files and folders."""

import argparse

SHELLS = ("bash", "zsh", "tcsh")


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that shall read what is printed")


def completion(arguments: argparse.Namespace) -> int:
    import shtab

    from expoflow.cli import whole_parser

    parser = whole_parser()
    for each in _parsers(parser):
        for action in each._actions:
            if action.metavar == "DIR":
                action.complete = shtab.DIRECTORY
            elif action.metavar in ("MODEL", "PROMPTS") or str(action.metavar).startswith(("FILE", "RUN")):
                action.complete = shtab.FILE
    print(shtab.complete(parser, arguments.shell))
    return 0


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Those of the commands."""
    groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return [command for group in groups for command in group.choices.values()]
