"""Digests of code: what moves them and what does not."""

from pathlib import Path

import pytest
from expoflow.dag import digest as module
from expoflow.dag.digest import digest, reached

FILES = {
    "__init__.py": "",
    "errors.py": "class E(Exception): pass\n",
    "engines/__init__.py": "",
    "engines/low.py": "VALUE = 1\nOTHER = 1\n",
    "middle.py": "from expoflow.engines import low\n\ndef f(x: int):\n    return low.VALUE\n\ndef g():\n    return 5\n",
    "top.py": "def g():\n    from expoflow import middle\n    return middle.f(1)\n",
    "table.py": "TABLE = {}\ndef enter(f):\n    TABLE[f.__name__] = f\n    return f\n",
    "entries.py": "from expoflow import table\n@table.enter\ndef one():\n    return 1\n",
    "lists.py": "from expoflow import entries\nfrom expoflow.table import TABLE\ndef all():\n    return [*TABLE]\n",
}


def forget() -> None:
    """What digests remember of files."""
    for each in vars(module).values():
        if hasattr(each, "cache_clear"):
            each.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package: top imports middle inside a function, middle imports engines.low; entries fills a table."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    forget()
    yield tmp_path
    forget()


def changed(package: Path, name: str, text: str, root: str = "top", **options) -> bool:
    before = digest([root], **options)
    (package / name).write_text(text)
    forget()
    return digest([root], **options) != before


def test_what_is_named_counts_also_inside_functions_and_packages(package):
    assert set(reached(["top"])) == {"top:g", "middle:f", "engines.low:VALUE"}
    assert changed(package, "engines/low.py", "VALUE = 2\nOTHER = 1\n")
    assert changed(package, "engines/__init__.py", "import os\nos.umask(7)\n")


def test_what_is_not_named_does_not_count(package):
    assert not changed(package, "top.py", "def g():\n    return 3\n", root="middle")
    assert not changed(package, "engines/low.py", "VALUE = 1\nOTHER = 2\n")
    assert not changed(package, "middle.py", FILES["middle.py"].replace("return 5", "return 6"))
    assert not changed(package, "middle.py", FILES["middle.py"] + "def h():\n    return g()\n")


@pytest.mark.parametrize(
    "text",
    [
        'def f(x: "str") -> object:\n    """Doc."""\n    # comment\n    return   low.VALUE\n',
        "def f(x):\n    print('here', x)\n    return low.VALUE\n",
        "from expoflow import table\n\ndef f(x):\n    table.report(x, 9, 'steps')\n    return low.VALUE\n",
    ],
    ids=["layout", "print", "report"],
)
def test_comments_docstrings_annotations_layout_and_words_do_not_count(package, text):
    assert not changed(package, "middle.py", f"from expoflow.engines import low\n{text}")


def test_the_text_of_an_error_does_not_count_but_its_class_and_its_condition_do(package):
    text = "from expoflow.errors import E\ndef f(x):\n    if x > 1:\n        raise E(f'too large: {x}')\n    return x\n"
    (package / "middle.py").write_text(text)
    forget()
    assert not changed(package, "middle.py", text.replace("too large", "larger than 1, take a smaller one"))
    assert changed(package, "middle.py", text.replace("x > 1", "x > 2"))
    assert changed(package, "middle.py", text.replace("raise E(", "raise ValueError("))


def test_a_variable_that_is_called_like_a_function_does_not_stand_for_it(package):
    local = "def g():\n    return 5\ndef f(x):\n    g = x\n    return [g for g in [g]]\n"
    (package / "middle.py").write_text(local)
    forget()
    assert set(reached(["middle:f"])) == {"middle:f"}
    used = "def g():\n    return 5\ndef f(x):\n    return g() + sum(g for g in x)\n"
    (package / "middle.py").write_text(used)
    forget()
    assert set(reached(["middle:f"])) == {"middle:f", "middle:g"}


def test_what_a_decorator_enters_into_a_table_counts_without_being_named(package):
    assert changed(
        package, "entries.py", FILES["entries.py"].replace("return 1", "return 2"), root="lists:all"
    )


def test_neutral_modules_and_packages_do_not_count(package):
    (package / "middle.py").write_text("from expoflow.errors import E\ndef f(x):\n    return E\n")
    forget()
    assert not changed(package, "errors.py", "class E(Exception): x = 1\n", root="middle", neutral={"errors"})
    assert changed(package, "errors.py", "class E(Exception): x = 2\n", root="middle")
    assert not reached(["engines.low"], neutral={"engines"})


def test_a_script_counts_with_what_it_names(package, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "with open('x') as say:\n    from expoflow import middle\n    middle.f(2)\n    say('done')\n"
    )
    assert set(reached([], script)) == {"script", "middle:f", "engines.low:VALUE"}
    before = digest([], script)
    script.write_text(script.read_text().replace("'done'", "'over'"))
    forget()
    assert digest([], script) == before
    script.write_text(script.read_text().replace("f(2)", "f(3)"))
    forget()
    assert digest([], script) != before


@pytest.mark.parametrize("root", ["absent", "middle:absent"])
def test_a_root_that_does_not_exist_is_an_error(package, root):
    with pytest.raises(ValueError, match=f"expoflow has no {root}"):
        digest([root])
