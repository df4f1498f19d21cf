"""The plan of the house (docs/structure.md): which folder may import which, no circles, and how large a part may be."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "workflow/scripts/expoflow"
PAGE = (ROOT / "docs/structure.md").read_text()
MODULES = sorted(LIBRARY.rglob("*.py"))


def block(name: str) -> str:
    return PAGE.partition(f"```{name}\n")[2].partition("```")[0]


def floors() -> dict[str, int]:
    """The number of every folder's floor, counted from the top."""
    found = {}
    for number, line in enumerate(block("floors").splitlines()):
        for folder in line[:22].split():
            found[folder] = number
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, whole: bool = True) -> Iterator[str]:
    """expoflow modules that a tree imports; without `whole` only what runs when the module itself is imported."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "expoflow":
            base = node.module.removeprefix("expoflow").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                place = LIBRARY.joinpath(*full.split("."))
                module = place.is_dir() or place.with_suffix(".py").is_file()
                yield full if module else base
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if whole or not (lazy or typing):
            waiting.extend(ast.iter_child_nodes(node))


def test_every_folder_has_its_floor():
    tops = {path.relative_to(LIBRARY).parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert set(floors()) == tops


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_module_imports_what_stands_above_it(path):
    order = floors()
    own = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    for module in imported(ast.parse(path.read_text())):
        top = module.split(".")[0]
        if module and own != "__init__":
            assert top == own or order[top] < order[own], (
                f"{own} stands above {top}, and imports {module}; see docs/structure.md"
            )


def test_no_module_imports_itself_in_a_circle():
    graph = {name_of(path): set(imported(ast.parse(path.read_text()), whole=False)) for path in MODULES}
    done: set[str] = set()

    def visit(module: str, chain: list[str]) -> None:
        assert module not in chain, f"a circle of imports: {' -> '.join([*chain, module])}"
        if module not in done:
            for other in graph.get(module, ()):
                if other != module:
                    visit(other, [*chain, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_what_every_snakemake_process_reads_is_little():
    allowed = block("common").split()
    text = (ROOT / "rules/common.smk").read_text()
    found = set()
    for package, names in re.findall(
        r"^from expoflow([\w.]*) import ([\w, ]+?)(?: as \w+)?$", text, re.MULTILINE
    ):
        found |= {f"{package.lstrip('.')}.{name}".lstrip(".") for name in names.replace(" ", "").split(",")}
    strangers = [
        name for name in found if not any(name == each or name.startswith(f"{each}.") for each in allowed)
    ]
    assert found
    assert not strangers


def test_no_folder_module_or_function_is_too_large_to_be_read():
    for folder in {path.parent for path in MODULES}:
        assert len([*folder.glob("*.py")]) <= 20, folder
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
