"""lm-eval's definitions of tasks: the tasks that a name stands for, their data and requirements.

lm-eval itself reads a definition by importing its code and loading its data. Here the files are
only read. Nothing is imported or loaded.
"""

import ast
import difflib
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from expoflow.benchmarks.lm_eval.data import definitions
from expoflow.errors import DataError
from expoflow.files.records import Record

# Keys of a group that are not settings of its tasks.
OF_GROUPS = {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag"}
MEANS = {"mean", "nanmean"}
KEY = r"['\"]?(?:task|group)['\"]?:[ \t]*['\"]?"  # the beginning of a line that names a task or group
NETWORK = ("requests", "httpx")  # packages that only calls to other servers need
# Packages with different names for installation and import.
INSTALLED_AS = {"sklearn": "scikit-learn", "antlr4": "antlr4-python3-runtime==4.11", "bs4": "beautifulsoup4"}


class Function(str):
    """A function that a definition names, as PATH-OF-MODULE.NAME."""


@dataclass(frozen=True)
class Leaf:
    """A single task: the settings of its file, and those of a group that override them."""

    name: str
    path: Path
    overrides: dict[str, Any]
    settings: dict[str, Any]

    @property
    def dataset(self) -> str:
        """The dataset that the definition names; or the reader of its files, such as json."""
        return str(self.settings.get("dataset_path"))

    @property
    def data_files(self) -> list[str]:
        """Files that the definition names in addition to the dataset."""
        return list(_texts((self.settings.get("dataset_kwargs") or {}).get("data_files")))

    def problem(self) -> str | None:
        """Why the task cannot be compared by document here; None if it can."""
        own, metrics = self.settings, self.settings.get("metric_list") or []
        aggregations = [each.get("aggregation", "mean") for each in metrics if isinstance(each, dict)]
        refused = {
            "is a class of its own, with data that are not known before it runs": "class" in own,
            "makes its data by its own code": "custom_dataset" in own,
            "names no dataset": not own.get("dataset_path"),
            "names files on the network": any("://" in each for each in self.data_files),
            "asks for the likelihood of whole texts": own.get("output_type") == "loglikelihood_rolling",
            "asks for several answers to a question": (own.get("repeats") or 1) > 1,
            "runs the code that a model writes": bool(own.get("unsafe_code")),
            "asks other servers over the network": any(map(self.uses, NETWORK)),
            "shows images or plays sounds": "doc_to_image" in own or "doc_to_audio" in own,
            "has no metric that is a mean over documents": bool(aggregations)
            and not any(isinstance(each, Function) or each in MEANS for each in aggregations),
            "has code among a group's settings": any(
                isinstance(each, Function) for each in self.overrides.values()
            ),
        }
        return next((reason for reason, applies in refused.items() if applies), None)

    def higher(self) -> dict[str, bool | None]:
        """Whether more is better, by metric that the task names; None if lm-eval does not say."""
        from lm_eval.api.registry import is_higher_better

        found: dict[str, bool | None] = {}
        for each in self.settings.get("metric_list") or []:
            name = str(each["metric"])
            name = name.rpartition(".")[2] if isinstance(each["metric"], Function) else name
            found[name] = each.get("higher_is_better", is_higher_better(name))
        return found

    def packages(self) -> list[str]:
        """Missing packages that the task's code imports, under their names for pip."""
        found = set()
        for function in _functions(self.settings):
            found |= _imports(Path(function.rpartition(".")[0] + ".py"))
        missing = sorted(name for name in found if importlib.util.find_spec(name) is None)
        return [INSTALLED_AS.get(name, name.replace("_", "-")) for name in missing]

    def uses(self, package: str) -> bool:
        """Whether the task's code imports a package."""
        modules = (Path(each.rpartition(".")[0] + ".py") for each in _functions(self.settings))
        return any(package in _imports(module) for module in modules)


class Figure(Record):
    """A reported figure: a task, or a group with a figure of its own, and a metric (default: all).

    A group's figure is the mean over its parts, weighted by their sizes or equally.
    """

    name: str
    parts: tuple[str, ...]
    metric: str | None = None
    filters: tuple[str, ...] | None = None
    by_size: bool = True


@dataclass
class Definitions:
    """The definitions in `include` and lm-eval's own. A name in both is that of `include`."""

    include: Path | None = None
    leaves: dict[str, Leaf] = field(default_factory=dict)

    def figures(self, name: str) -> list[Figure]:
        """The figures of a name in `tasks`; adds its tasks to `leaves`.

        Raises DataError if the name is not known.
        """
        return self._figures(name, {}, "")

    def nearest(self, name: str) -> list[str]:
        """Names of tasks and groups that are similar to a name."""
        return difflib.get_close_matches(name, self._names, n=3, cutoff=0.6)

    @cached_property
    def _names(self) -> list[str]:
        found = set()
        for folder in self._places:
            for _, text in _files(folder):
                found.update(re.findall(rf"^{KEY}([^\s'\"#]+)", text, re.MULTILINE))
        return sorted(found)

    @property
    def _places(self) -> list[Path]:
        return [*([self.include] if self.include else []), definitions()]

    def _figures(self, name: str, overrides: dict[str, Any], below: str) -> list[Figure]:
        path = self._path(name)
        if path is None:
            members = self._tagged(name)
            if not members:
                near = "" if below else ", ".join(self.nearest(name))
                where = f" (a member of '{below}')" if below else ""
                remedy = f"the nearest are: {near}" if near else "lm-eval ls tasks lists them"
                raise DataError(f"lm-eval has no task or group '{name}'{where}; {remedy}")
            return [figure for each in members for figure in self._figures(each, overrides, name)]
        settings = read(path)
        if "group" in settings and "class" not in settings:
            return self._of_group(settings, overrides)
        if name in self.leaves and self.leaves[name].overrides != overrides:
            raise DataError(
                f"lm-eval's task '{name}' is asked for in two ways; leave out one of the groups that have it"
            )
        self.leaves[name] = Leaf(name, path, overrides, settings | overrides)
        return [Figure(name=name, parts=(name,))]

    def _of_group(self, settings: dict[str, Any], overrides: dict[str, Any]) -> list[Figure]:
        name = settings["group"]
        own = {key: value for key, value in settings.items() if key not in OF_GROUPS} | overrides
        members = settings.get("task") or []
        below = [f for each in _listed(members) for f in self._member(each, own, name)]
        parts = tuple(dict.fromkeys(part for figure in below for part in figure.parts))
        found = [
            Figure(
                name=name,
                parts=parts,
                metric=each["metric"],
                filters=tuple(_listed(each["filter_list"])) if each.get("filter_list") else None,
                by_size=each.get("weight_by_size", True),
            )
            for each in _listed(settings.get("aggregate_metric_list"))
        ]
        return found or below

    def _member(self, member: str | dict[str, Any], overrides: dict[str, Any], group: str) -> list[Figure]:
        if isinstance(member, str):
            return self._figures(member, overrides, group)
        inner = {key: value for key, value in member.items() if key not in ("task", "group")}
        if "group" in member and self._path(member["group"]) is None:
            return self._of_group(member, overrides)
        if not isinstance(name := member.get("group") or member.get("task"), str):
            raise DataError(
                f"lm-eval's group '{group}' has a member without a name; name the tasks of the group that you want"
            )
        return self._figures(name, overrides | inner, group)

    def _path(self, name: str) -> Path | None:
        """The file that defines a task or group."""
        line = re.compile(rf"^{KEY}{re.escape(name)}['\"]?[ \t]*(?:#.*)?$", re.MULTILINE)
        for folder in self._likely(name):
            for path, text in _files(folder):
                if name in text and line.search(text):
                    return path
        return None

    def _likely(self, name: str) -> Iterator[Path]:
        """Folders in which a name may be defined.

        Folders with a similar name come first, because all folders together have many files.
        """
        if self.include:
            yield self.include
        first = re.split(r"[_\-:]", name)[0]
        for folder in sorted(definitions().iterdir()):
            if folder.is_dir() and (folder.name.startswith(first) or first.startswith(folder.name)):
                yield folder
        yield definitions()

    def _tagged(self, tag: str) -> list[str]:
        """The tasks that have a tag."""
        found = []
        for folder in self._places:
            for path, text in _files(folder):
                if tag in text and "tag" in text:
                    settings = read(path)
                    if tag in _listed(settings.get("tag")) and isinstance(settings.get("task"), str):
                        found.append(settings["task"])
        return sorted(set(found))


@cache
def _files(folder: Path) -> list[tuple[Path, str]]:
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: path.as_posix())
    return [(path, path.read_text(encoding="utf-8", errors="replace")) for path in paths]


@cache
def read(path: Path) -> dict[str, Any]:
    """Read a definition with its includes; functions are named, not imported. Raises DataError."""

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> Function:
        module, _, name = loader.construct_scalar(node).rpartition(".")
        return Function(f"{path.parent / module.replace('.', '/')}.{name}")

    Loader.add_constructor("!function", function)
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read as a definition of lm-eval ({error}); correct it") from None
    if not isinstance(settings, dict):
        raise DataError(f"{path}: is not a definition of lm-eval; name a task or group in it")
    merged: dict[str, Any] = {}
    for each in _listed(settings.pop("include", None)):
        merged |= read(path.parent / each)
    return merged | settings


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts(value: Any) -> Iterator[str]:
    """All strings in plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _functions(value: Any) -> Iterator[Function]:
    return (each for each in _texts(value) if isinstance(each, Function))


@cache
def _imports(module: Path) -> frozenset[str]:
    """Packages that the import of a task's module imports, without Python's own and lm-eval."""
    found: set[str] = set()
    waiting, seen = [module], set()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for name in _imported(node):
                if name.startswith("lm_eval.tasks."):
                    below = definitions().joinpath(*name.split(".")[2:])
                    waiting += [below.with_suffix(".py"), below.parent.with_suffix(".py")]
                elif (beside := path.parent / f"{name.partition('.')[0]}.py").is_file():
                    waiting.append(beside)
                else:
                    found.add(name.partition(".")[0])
    return frozenset(found - sys.stdlib_module_names - {"lm_eval"})


def _imported(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Try) and any(isinstance(each, ast.Raise) for each in ast.walk(node)):
        for each in node.body:  # a missing name raises there
            yield from _imported(each)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
