"""Digests of code: what a rule's result depends on, definition by definition.

Snakemake does not notice edits of imported modules, so every rule has a digest of its code among
its parameters. The digest covers the rule's script, the functions, classes and constants of
expoflow that the script names, and what these name in turn. It ignores what changes no result:
comments, docstrings, formatting, annotations of functions, the text of raised errors, and printed
text.

Code that is reached by a name in a string (`importlib`, the work of engine hosts) cannot be seen
here. `dag.code` lists it.
"""

import ast
import hashlib
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# Calls that only report something, if their return value is not used.
TELLING = frozenset({"print", "say", "told", "progress", "report"})
# A module and a name in it. The name may be ALL, for all of its names, or LOOSE, for the statements
# in between, which run on import.
Place = tuple[str, str]
ALL, LOOSE = "*", ""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SCOPES = (*FUNCTIONS, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Every start of Snakemake goes through the library. Skipping fields that cannot hold what is
# searched halves the time: statements occur only in the fields BLOCKS of statements, and names
# never occur in the fields NAMELESS.
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
NAMELESS = frozenset({"ctx", "op", "ops"})


def digest(roots: Iterable[str], script: Path | None = None, neutral: Collection[str] = ()) -> str:
    """The first 16 hexadecimal digits of a sha256 over all code that `reached` finds."""
    lines = [f"{name} {value}" for name, value in sorted(reached(roots, script, neutral).items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def files(folder: str) -> str:
    """sha256 over the names and bytes of the files in a folder of expoflow, such as
    `reporting/pages/assets`."""
    held = hashlib.sha256()
    for path in sorted((PACKAGE / folder).iterdir()):
        held.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return held.hexdigest()


def reached(
    roots: Iterable[str], script: Path | None = None, neutral: Collection[str] = ()
) -> dict[str, str]:
    """sha256 of every definition that `roots` and `script` depend on, by `module:name`.

    The key of the script itself is `script`. A root is a module below expoflow
    (`engines.answering`) or one name in it (`engines.answering:generate`). Modules and packages in
    `neutral` do not count, including everything in them. Raises ValueError for a root that does not
    exist.
    """
    found, seen = {}, set()
    waiting = [_root(root) for root in roots]
    if script is not None:
        tree = _tree(script)
        found["script"] = _hash([tree])
        waiting += _targets([tree], _Module(tree))
    while waiting:
        place = waiting.pop()
        if place not in seen and not _within(place[0], neutral):
            seen.add(place)
            value, targets = _facts(*place)
            waiting += targets
            if value:
                found[":".join(place)] = value
    return found


def _root(root: str) -> Place:
    module, _, name = root.partition(":")
    if not is_module(module) or (name and name not in _module(module).definitions):
        raise ValueError(f"expoflow has no {root}")
    return module, name or ALL


def _within(module: str, packages: Collection[str]) -> bool:
    """Whether a module is one of `packages`, or below one of them."""
    parents = [module[:end] for end, letter in enumerate(module) if letter == "."]
    return any(each in packages for each in (module, *parents))


class _Module:
    """One module: its definitions by name, the sources of its imported names, and the statements in
    between."""

    def __init__(self, tree: ast.Module, name: str = ""):
        self.name = name
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.loose: list[ast.stmt] = []
        self.imports: dict[str, set[str]] = {}
        for node in _statements([tree]):
            for here, target in _imported(node):
                self.imports.setdefault(here, set()).add(target)
        for statement in tree.body:
            names = [] if _registers(statement, self.imports) else _defined(statement)
            for each in names:
                self.definitions.setdefault(each, []).append(statement)
            if not names:
                self.loose.append(statement)


@cache
def _facts(name: str, wanted: str) -> tuple[str | None, frozenset[Place]]:
    """The sha256 of the code at a place (None if there is none), and the places that it depends
    on."""
    module = _module(name)
    run = {(name, LOOSE)}
    if wanted == ALL:
        return None, frozenset({(name, each) for each in module.definitions} | run)
    if wanted == LOOSE:
        around = {(name.rpartition(".")[0], LOOSE)} if name else set()
        return _hash(module.loose), frozenset(_targets(module.loose, module) | around)
    if nodes := module.definitions.get(wanted):
        return _hash(nodes), frozenset(_targets(nodes, module) | run)
    return None, frozenset({_place(target) for target in module.imports.get(wanted, ())} | run)


def _targets(nodes: list[ast.stmt], module: _Module) -> set[Place]:
    """The places that the names in `nodes` of `module` refer to. Imported modules count too,
    because they are run."""
    found = set()
    for chain in _names(nodes):
        if chain[0] in module.definitions:
            found.add((module.name, chain[0]))
        for target in module.imports.get(chain[0], ()):
            found.add(_place(".".join((target, *chain[1:]))))
    for each in _statements(nodes):
        found.update((_longest(target)[0], LOOSE) for _, target in _imported(each))
    return found


def _place(dotted: str) -> Place:
    """The place that `module.name`, or a module alone, refers to."""
    module, rest = _longest(dotted)
    return module, rest[0] if rest else ALL


def _hash(nodes: list[ast.stmt]) -> str | None:
    """sha256 of syntax trees without imports, or None: imported code counts only where it is
    named."""
    dumped = [ast.dump(node) for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom)]
    return hashlib.sha256("\n".join(dumped).encode()).hexdigest() if dumped else None


@cache
def _module(name: str) -> _Module:
    return _Module(_tree(_path(name)), name)


def _path(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def is_module(name: str) -> bool:
    """Whether expoflow has a module of this name."""
    return _path(name).is_file()


@cache
def _longest(dotted: str) -> tuple[str, list[str]]:
    """The longest prefix of `dotted` that is a module, and the names after it."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        if is_module(".".join(parts[:end])):
            return ".".join(parts[:end]), parts[end:]
    return "", parts


def _statements(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Statements and all statements nested in them, in any order."""
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        yield node
        for block in BLOCKS:
            waiting += getattr(node, block, ())


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The child nodes that can be, or contain, a name."""
    for field in node._fields:
        if field not in NAMELESS:
            value = getattr(node, field, None)
            if isinstance(value, list):
                yield from (each for each in value if isinstance(each, ast.AST))
            elif isinstance(value, ast.AST):
                yield value


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that an import statement brings from expoflow: (name here, dotted place below
    expoflow)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.startswith("expoflow.") and alias.asname:
                yield alias.asname, alias.name.removeprefix("expoflow.")
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        package, _, below = node.module.partition(".")
        if package == "expoflow":
            for alias in node.names:
                yield alias.asname or alias.name, f"{below}.{alias.name}" if below else alias.name


def _registers(statement: ast.stmt, imports: dict[str, set[str]]) -> bool:
    """Whether a decorator from expoflow registers a definition, which then counts without being
    named."""
    decorators = getattr(statement, "decorator_list", [])
    return any(chain[0] in imports for chain in _names(decorators))


def _defined(statement: ast.stmt) -> list[str]:
    """Names that a statement at the top of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return []
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _names(nodes: Iterable[ast.AST], hidden: frozenset[str] = frozenset()) -> Iterator[tuple[str, ...]]:
    """Names of the module in syntax trees, in any order, with their attributes: `a.b.c` is (a, b,
    c).

    A function's own variables, which hide names of the module, are left out.
    """
    waiting = [(node, hidden) for node in nodes]
    while waiting:
        inner, hidden = waiting.pop()
        attributes = []
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            if inner.id not in hidden:
                yield (inner.id, *reversed(attributes))
        elif isinstance(inner, SCOPES):
            outer, own = _scope(inner)
            within = hidden | _variables(inner, own)
            waiting += [(each, hidden) for each in outer] + [(each, within) for each in own]
        else:
            waiting += [(each, hidden) for each in _children(inner)]


def _scope(node: ast.AST) -> tuple[list[ast.AST], list[ast.AST]]:
    """Children of a function or comprehension: those outside its scope, and those inside."""
    if isinstance(node, FUNCTIONS):
        defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        body = node.body if isinstance(node.body, list) else [node.body]
        return [*getattr(node, "decorator_list", []), *defaults], body
    return [node.generators[0].iter], list(ast.iter_child_nodes(node))


def _variables(node: ast.AST, own: list[ast.AST]) -> frozenset[str]:
    """The variables of a function or comprehension."""
    if not isinstance(node, FUNCTIONS):
        targets = [each.target for each in node.generators]
        return frozenset(n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))
    found = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
    shared: set[str] = set()
    waiting = list(own)
    while waiting:
        each = waiting.pop()
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            found.add(each.id)
        elif isinstance(each, ast.Global | ast.Nonlocal):
            shared.update(each.names)
        elif not isinstance(each, (*SCOPES, ast.ClassDef)):
            waiting += _children(each)
    return frozenset(found - shared)


@cache
def _tree(path: Path) -> ast.Module:
    return _Stripped().visit(ast.parse(path.read_text(encoding="utf-8")))


class _Stripped(ast.NodeTransformer):
    """Remove everything from a syntax tree that changes no result."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Visit the statements within a statement."""
        for block in BLOCKS:
            if statements := getattr(node, block, None):
                setattr(node, block, [kept for each in statements if (kept := self.visit(each))])
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Leave out docstrings, and calls that only report something."""
        value = node.value
        if isinstance(value, ast.Constant):
            return None
        if isinstance(value, ast.Call):
            called = value.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in TELLING:
                return None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Keep the type of the exception, but not its message."""
        return ast.Raise(exc=node.exc.func if isinstance(node.exc, ast.Call) else node.exc, cause=None)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Leave out imports that only a type checker sees."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Leave out annotations. Those of a class stay, because they may be the fields of a
        record."""
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        self.generic_visit(node)
        node.body = [_plain(statement) for statement in node.body]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815


def _plain(statement: ast.stmt) -> ast.stmt:
    """A statement of a function's body without the annotation of a variable."""
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return ast.Assign(targets=[statement.target], value=statement.value, lineno=0)
    return statement
