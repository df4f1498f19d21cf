"""The hooks that make the site of the Markdown that a repository's host shows."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="`make test` installs it")
sys.path.insert(0, str(Path(__file__).parents[2] / "docs/build"))
import hooks


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("README.md", "[a](docs/data.md#forms)", "[a](data.md#forms)"),
        ("README.md", "![a](docs/sweep.png)", "![a](sweep.png)"),
        ("docs/data.md", "[a](../README.md)", "[a](index.md)"),
        ("docs/data.md", "[a](../config/paper.yaml)", "[a](files/config/paper.yaml.md)"),
        ("docs/claims/details.md", "[a](../../results/README.md#x)", "[a](../files/results/README.md#x)"),
        ("results/README.md", "[a](../docs/data.md)", "[a](../../data.md)"),
        (
            "docs/data.md",
            "[a](https://example.org/x.md), [b](#here)",
            "[a](https://example.org/x.md), [b](#here)",
        ),
        ("docs/data.md", "`[a](../README.md)`", "`[a](../README.md)`"),
    ],
)
def test_a_link_leads_to_the_same_file_on_the_site(file, text, expected):
    assert hooks.linked(text, file) == expected
    assert hooks.source(hooks.place(file)) == file


def test_what_a_page_links_to_is_found_outside_of_code():
    text = "[a](../config/paper.yaml) `[b](../x.py)`\n\n```\n[c](../y.py)\n```\n[d](https://example.org)"
    assert hooks.links(text, "docs/data.md") == {"config/paper.yaml"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n  more\n\n  ```sh\n  x\n  ```", "- a\n    more\n\n    ```sh\n    x\n    ```"),
        ("1. a\n\n    b\n", "1. a\n\n    b"),
        ("- a\n  - b\n    c", "- a\n\n    - b\n        c"),
        ("text\n- a\n- b", "text\n\n- a\n- b"),
        ("text\n| a |\n| --- |", "text\n\n| a |\n| --- |"),
        ("```\ntext\n- a\n```", "```\ntext\n- a\n```"),
        ("text\n|delta| is small", "text\n|delta| is small"),
    ],
)
def test_lists_and_tables_are_as_the_site_wants_them(text, expected):
    assert "\n".join(hooks.widened(text.splitlines())).rstrip() == expected


def test_what_is_no_tag_is_text():
    def escaped(text: str) -> str:
        return hooks.TAG.sub(lambda match: "&lt;" if match[0] == "<" else match[0], text)

    assert escaped("<grad J, delta>") == "&lt;grad J, delta>"
    assert escaped("a<sup>1</sup> `<pad>` <!-- x -->") == "a<sup>1</sup> `<pad>` <!-- x -->"
