"""The reference pages in docs/reference/, the version, and the hooks that make the site of the same Markdown."""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from expoflow import __version__
from expoflow.cli import whole_parser
from expoflow.cli.completion import commands
from expoflow.config import Config
from expoflow.files.records import provenance
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/reference"
sys.path.insert(0, str(ROOT / "docs/build"))
import config_page  # noqa: E402
import config_values  # noqa: E402
import reference  # noqa: E402

CONFIG = (PAGES / "configuration.md").read_text(encoding="utf-8")
COMMANDS = (PAGES / "commands.md").read_text(encoding="utf-8")


def test_the_pages_are_fresh():
    for name, text in reference.pages().items():
        assert (PAGES / name).read_text(encoding="utf-8") == text, "run: make reference"


def models(annotation: object, path: str) -> list[tuple[type[BaseModel], str]]:
    """The sections in a type, each with its path."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, path)]
    parts = get_args(annotation)
    if getattr(annotation, "__origin__", None) is dict:
        return models(parts[1], f"{path}.{{name}}")
    return [found for part in parts for found in models(part, path)]


def sections() -> dict[str, list[tuple[str, dict]]]:
    """The places and fields of every section, by the name of its model; a pair's overrides have those of what they override."""
    found: dict[str, list[tuple[str, dict]]] = {}
    waiting: list[tuple[type[BaseModel], str]] = [(Config, "")]
    while waiting:
        model, path = waiting.pop()
        found.setdefault(model.__name__, []).append((path, model.model_fields))
        for name, field in model.model_fields.items():
            waiting += models(field.annotation, f"{path}.{field.alias or name}".lstrip("."))
    for name in [name for name in found if name.removeprefix("Pair") in found]:
        if name != "Config" and name.startswith("Pair") and name != "PairConfig":
            found[name.removeprefix("Pair")] += found.pop(name)
    return found


@pytest.mark.parametrize("name", sections())
def test_every_key_of_the_config_is_on_the_page(name):
    places = sections()[name]
    fields = {field.alias or key for _, each in places for key, field in each.items()}
    shown = [
        path for path, _ in places if all(f"| `{f'{path}.{key}'.lstrip('.')}` | " in CONFIG for key in fields)
    ]
    assert shown, f"not all of {sorted(fields)} are on the page at one of {[path for path, _ in places]}"


def rows() -> list[config_page.Key]:
    every = [
        (config_page.SCHEMA, ""),
        *((config_page.DEFINED[name], at) for name, at in config_page.PLACES.items()),
    ]
    return [key for definition, path in every for key in config_page.keys(definition, path)]


def test_every_key_has_a_type_a_text_and_an_example_that_is_allowed():
    shipped = config_page.shipped_values()
    for key in rows():
        cells = re.split(r" (?<!\\)\| ", config_page.row(key, shipped).strip("| "))
        assert all(cells), f"{key.path}: a cell is empty: {cells}"
        example = config_page.example(key, shipped)
        checked = jsonschema.Draft202012Validator(key.schema | {"$defs": config_page.DEFINED})
        problems = [error.message for error in checked.iter_errors(example)]
        assert not problems, f"{key.path}: {example}"
        assert (
            not isinstance(example, float | int)
            or isinstance(example, bool)
            or config_page.unit(key)
            or (key.path.rpartition(".")[2] in config_values.NO_UNIT)
        ), f"{key.path} has no unit"


def test_every_unit_and_example_belongs_to_a_key():
    paths = [f".{key.path}" for key in rows()]
    for end in (*config_values.UNITS, *config_values.EXAMPLES, *config_values.NO_UNIT):
        assert any(path.endswith(f".{end}") for path in paths), f"{end} is no key any more"


@pytest.mark.parametrize("name", commands(whole_parser()))
def test_every_option_of_the_command_line_is_on_the_page(name):
    own = COMMANDS.partition(f"\n## expoflow {name}\n")[2].partition("\n## ")[0]
    for action in commands(whole_parser())[name]._actions:
        if action.help is argparse.SUPPRESS:
            continue
        value = action.metavar or "{" + ",".join(action.choices or ()) + "}"
        for option in action.option_strings or [value]:
            assert re.search(rf"`{re.escape(str(option))}[` ]", own), f"{option} is not on the page"


def test_the_version_stands_in_one_place():
    said = subprocess.run(
        [sys.executable, "-m", "expoflow.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"expoflow {__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "workflow/scripts/expoflow/__init__.py"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert provenance()["expoflow"] == __version__  # what recipe.json states
