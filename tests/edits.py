"""Edits of code, as digests see them."""

import ast
from pathlib import Path


def change_code(path: Path) -> None:
    """Change every function of a module, not what it does."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body.insert(0, ast.parse("assert True").body[0])
    path.write_text(ast.unparse(tree))
