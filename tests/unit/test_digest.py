"""Digests of code: what moves them and what does not."""

from pathlib import Path

import pytest
from expoflow import digest as module
from expoflow.digest import digest


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package of three modules: top imports middle inside a function, middle imports engines.low."""
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines/__init__.py").write_text("")
    (tmp_path / "engines/low.py").write_text("VALUE = 1\n")
    (tmp_path / "middle.py").write_text(
        "from expoflow.engines import low\n\n\ndef f():\n    return low.VALUE\n"
    )
    (tmp_path / "top.py").write_text("def g():\n    from expoflow import middle\n    return middle.f()\n")
    (tmp_path / "errors.py").write_text("class E(Exception): pass\n")
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    module._tree.cache_clear()
    module._syntax.cache_clear()
    module._imports.cache_clear()
    yield tmp_path
    module._tree.cache_clear()
    module._syntax.cache_clear()
    module._imports.cache_clear()


def changed(package: Path, name: str, text: str, root: str = "top") -> bool:
    before = digest([root])
    (package / name).write_text(text)
    module._tree.cache_clear()
    module._syntax.cache_clear()
    module._imports.cache_clear()
    return digest([root]) != before


def test_what_is_imported_counts_also_inside_functions_and_packages(package):
    assert changed(package, "engines/low.py", "VALUE = 2\n")
    assert changed(package, "engines/__init__.py", "OTHER = 2\n")


def test_what_is_not_imported_does_not_count(package):
    assert not changed(package, "top.py", "def g():\n    return 3\n", root="middle")


def test_comments_docstrings_and_layout_do_not_count(package):
    assert not changed(package, "engines/low.py", '"""Doc."""\n# comment\nVALUE   =   1\n')
    assert not changed(
        package, "middle.py", (package / "middle.py").read_text().replace("def f():", 'def f():\n    "Doc."')
    )


def test_neutral_modules_do_not_count(package):
    (package / "middle.py").write_text("from expoflow import errors\n")
    module._imports.cache_clear()
    assert not changed(package, "errors.py", "class F(Exception): pass\n", root="middle")


def test_a_root_that_is_no_module_is_an_error(package):
    with pytest.raises(FileNotFoundError):
        digest(["absent"])
