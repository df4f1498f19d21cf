"""Digests of code: what a rule's result depends on, unmoved by comments, docstrings and formatting.

Snakemake does not see edits of imported modules, so every rule carries a digest of its code among its
parameters. A module's digest covers its own syntax tree and those of the expoflow modules that it
imports, also inside functions.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
# Modules that change what a person reads, never a result; figures count where they are named as a root.
NEUTRAL = frozenset(
    {
        *("errors", "config", "records", "cli", "figures", "logs", "store", "serving", "host", "parts"),
        *("judge", "asking", "costs", "verdicts"),
        "hub",  # the bytes of a commit are the same, however they come
    }
)


def digest(roots: Iterable[str], script: Path | None = None) -> str:
    """First 16 hexadecimal digits of a sha256 over the code of `roots` and all that they import.

    `roots` are module names below expoflow (`engines.transformers`); `script` is a file that counts
    alone, without its imports. Raises FileNotFoundError for a root that is no module.
    """
    modules: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module not in modules:
            modules.add(module)
            waiting.extend(name for name in _imports(module) if name not in NEUTRAL)
    parts = [f"{module} {_syntax(_path(module))}" for module in sorted(modules)]
    if script is not None:
        parts.append(f"script {_syntax(script)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _path(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]
    return tree


@cache
def _syntax(path: Path) -> str:
    return hashlib.sha256(ast.dump(_tree(path)).encode()).hexdigest()


@cache
def _imports(module: str) -> tuple[str, ...]:
    """expoflow modules that `module` imports, the packages around them included."""
    found = set()
    for node in ast.walk(_tree(_path(module))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            below = name.removeprefix("expoflow.")
            if below != name and _path(below).is_file():
                found.add(below)
    parents = {below.rpartition(".")[0] for below in found} - {""}
    return tuple(sorted(found | parents))
