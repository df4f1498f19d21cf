"""docs/reference/commands.md: every command and every option, from the parsers of the command line."""

import argparse
import re
from collections.abc import Iterator

from expoflow.cli import whole_parser
from expoflow.cli.completion import commands

HEAD = """<!-- Made by `make reference` from the parsers of expoflow; do not edit. -->

# Every command

This page lists every command and every option of `expoflow`. [commands.md](../commands.md) explains
how the commands work together. `expoflow COMMAND --help` prints the same.
"""


def page() -> str:
    """The whole page."""
    parser = whole_parser()
    every = commands(parser)
    help_of = {action.dest: action.help for action in _choices(parser)}
    listed = "".join(
        f"| [`expoflow {name}`](#expoflow-{name}) | {_cell(help_of[name])} |\n" for name in every
    )
    return "\n".join(
        [
            HEAD,
            f"| command | what it does |\n| --- | --- |\n{listed}",
            f"## Without a command\n\n{_options(parser)}",
            f"## Exit status\n\n{_statuses(parser.epilog or '')}",
            *(_command(name, each) for name, each in every.items()),
        ]
    )


def _choices(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action._choices_actions


def _statuses(epilog: str) -> str:
    """The table of exit statuses that the help ends with."""
    pairs = re.findall(r"(\d+) ([^;.]+)[;.]", epilog)
    rows = "".join(f"| {number} | {meaning} |\n" for number, meaning in pairs)
    return f"| status | meaning |\n| --- | --- |\n{rows}"


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    usage = re.split(r"\n\s*(?=expoflow )", parser.format_usage().removeprefix("usage: "))
    shown = "\n".join(_wrapped(" ".join(each.split())) for each in usage)
    text = (parser.description or "").strip().rstrip(".")
    text = text[:1].upper() + text[1:] if not text.startswith("theta") else text
    return f"## expoflow {name}\n\n{text}.\n\n```text\n{shown}\n```\n\n{_options(parser)}"


def _wrapped(usage: str, width: int = 96) -> str:
    """A usage of lines of at most `width` characters; an option stays with its value."""
    lines = [""]
    for part in re.findall(r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]|\S+", usage):
        if len(lines[-1]) + len(part) > width:
            lines.append("   ")
        lines[-1] += (" " if lines[-1] else "") + part
    return "\n".join(lines)


def _options(parser: argparse.ArgumentParser) -> str:
    formatter = parser._get_formatter()
    rows = []
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        text = formatter._expand_help(action) if action.help else ""
        default, text = _default(action, text)
        rows.append(f"| {_names(action)} | {_cell(default)} | {_cell(text)} |\n")
    return "| argument | default | meaning |\n| --- | --- | --- |\n" + "".join(rows)


def _names(action: argparse.Action) -> str:
    """How an argument is written."""
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest
    )
    value = " ".join(value) if isinstance(value, tuple) else str(value)
    if not action.option_strings:
        return f"`{value}`"
    if action.nargs == 0:
        return ", ".join(f"`{each}`" for each in action.option_strings)
    value = f"[{value}]" if action.nargs == "?" else f"{value} ..." if action.nargs in ("+", "*") else value
    return ", ".join(f"`{each} {value}`" for each in action.option_strings)


def _default(action: argparse.Action, text: str) -> tuple[str, str]:
    """The default of an argument, and its help without the words about the default."""
    parts = text.split("; ")
    stated = next((part for part in parts if part.startswith("default: ")), None)
    if stated is not None:
        others = [part for part in parts if part != stated]
        return stated.removeprefix("default: "), "; ".join(others)
    if action.required or (not action.option_strings and action.nargs not in ("?", "*")):
        return "required", text
    if action.nargs == 0 or action.default in (None, argparse.SUPPRESS, []):
        return "", text
    return f"`{action.default}`", text


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
