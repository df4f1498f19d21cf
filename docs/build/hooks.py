"""Hooks of MkDocs: the site is made of the same Markdown that a repository's host shows.

A link goes to a file of the repository, relative to the page that has it. A file outside docs/ that a page links to
becomes a page of the site below files/: Markdown as it is, anything else as a block of code. README.md is index.md.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
HOME = {"README.md": "index.md"}
OUTSIDE = "files/"  # of the site: what lies outside docs/
CODE = r"^ *```.*?^ *```|`(?:[^`\n]|\n(?!\n))+`"
FLAGS = re.DOTALL | re.MULTILINE
# Code, in which nothing is a link, or the target of a link.
TARGET = re.compile(rf"{CODE}|(?<=\]\()(?P<file>[^()\s#]*)(?P<anchor>#[^()\s]*)?(?=\))", FLAGS)
# Code, or what would be taken for a tag: the pages use <sup> alone.
TAG = re.compile(rf"{CODE}|^ {{4}}[^\n]*|<(?=[/A-Za-z])(?!/?sup>|https?:)", FLAGS)
ADDRESS = re.compile(r"[a-z]+:")
ITEM = re.compile(r"([-*]|\d+\.) +")
LANGUAGES = {
    ".yaml": "yaml",
    ".json": "json",
    ".py": "python",
    ".smk": "python",
    ".sh": "sh",
    ".toml": "toml",
}
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"


def place(file: str) -> str:
    """Where the site has a file of the repository."""
    if file in HOME:
        return HOME[file]
    if file.startswith(DOCS):
        return file.removeprefix(DOCS)
    return OUTSIDE + (file if file.endswith(".md") else f"{file}.md")


def source(page: str) -> str:
    """The file of the repository that a page of the site is made of."""
    home = {site: file for file, site in HOME.items()}
    return home.get(page) or (page.removeprefix(OUTSIDE) if page.startswith(OUTSIDE) else DOCS + page)


def links(text: str, file: str) -> set[str]:
    """The files of the repository that the text of `file` links to."""
    found = (match["file"] for match in TARGET.finditer(text))
    return {_target(each, file) for each in found if each and not ADDRESS.match(each)}


def _target(link: str, file: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), link))


def linked(text: str, file: str) -> str:
    """The text of `file` with the links that the site has."""
    folder = posixpath.dirname(place(file))

    def change(match: re.Match[str]) -> str:
        if not match["file"] or ADDRESS.match(match["file"]):
            return match[0]
        target = place(_target(match["file"], file))
        return posixpath.relpath(target, folder or ".") + (match["anchor"] or "")

    return TARGET.sub(change, text)


def widened(lines: list[str]) -> list[str]:
    """The lines with list items set in by four columns, which Python-Markdown wants; hosts take two or three."""
    made: list[str] = []
    number, fence = 0, False
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.startswith("```"):
            fence = not fence
        item = None if fence else ITEM.match(line)
        if not item:
            if (
                not fence
                and re.fullmatch(r"\|.*\| *", line)
                and made
                and made[-1].strip()
                and made[-1][0] != "|"
            ):
                made.append("")  # a table may not follow a line of text
            made.append(line)
            continue
        end = number
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" " * item.end())):
            end += 1
        within = lines[number:end]
        number, width = end, min([4, *(len(each) - len(each.lstrip()) for each in within if each.strip())])
        first, *others = widened([line[item.end() :], *(each[width:] for each in within)])
        if made and made[-1].strip() and not made[-1].startswith(" ") and not ITEM.match(made[-1]):
            made.append("")  # nor may a list
        made += [f"{item[0]}{first}", *(f"    {each}" if each.strip() else "" for each in others)]
    return made


def _shown(file: str) -> str:
    """The page of a file outside docs/."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".md"):
        return UNSEARCHED + text
    fence = "`" * (3 + max(map(len, re.findall(r"`+", text)), default=0))
    language = LANGUAGES.get(Path(file).suffix, "text")
    return f"{UNSEARCHED}# {file}\n\n{fence}{language}\n{text}{fence}\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md, and what pages link to outside docs/."""
    for file, site in HOME.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        files.append(File.generated(config, site, content=text))
    wanted = {"CHANGELOG.md", "results/README.md"}  # the navigation has these
    seen: set[str] = set()
    for page in files.documentation_pages():
        wanted |= links(page.content_string, source(page.src_uri))
    while wanted := {each for each in wanted if files.get_file_from_path(place(each)) is None} - seen:
        file = min(wanted)
        seen.add(file)
        if (ROOT / file).is_file() and not file.startswith(DOCS):
            text = _shown(file)
            files.append(File.generated(config, place(file), content=text))
            wanted |= links(text, file) if file.endswith(".md") else set()
        elif (ROOT / file).is_dir():
            raise PluginError(f"{file} is a folder, and a page links to it; link to a file of it")
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """The page's text as Python-Markdown wants it."""
    text = linked(markdown, source(page.file.src_uri))
    text = TAG.sub(lambda match: "&lt;" if match[0] == "<" else match[0], text)
    return "\n".join(widened(text.splitlines()))
