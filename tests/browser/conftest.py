"""A headless Chromium that opens pages from the disk, and reports all that they must not do."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workflow.tree import REPOSITORY, Tree

CHROMIUM = os.environ.get("EXPOFLOW_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser these tests are skipped, and say so."""
    for item in items:
        if "browser" in item.keywords and not CHROMIUM:
            item.add_marker(pytest.mark.skip(reason="needs Chromium: apt-get install chromium"))


@pytest.fixture(scope="session")
def chromium():
    """The browser of all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def default_run(made_once) -> Path:
    """The results of the default run, `make run`'s: two to three minutes."""

    def make(folder: Path) -> None:
        (folder / "tree").mkdir()
        shutil.copy(REPOSITORY / "config/config.yaml", folder / "tree")
        Tree(folder / "tree", folder / "store").snakemake("--cores", "all", timeout=1800)

    return made_once("default", make) / "tree" / "results"


@pytest.fixture
def opened(chromium) -> Iterator[Callable]:
    """Opens a page of the disk: `opened(path, "#prompt=..", width=400, dark=True)`.

    At the end of a test nothing may have been fetched but the page itself, no other page may have been opened, and the console may have
    no error, such as a breach of the content security policy.
    """
    wrong, contexts = [], []

    def open_page(
        path: Path, fragment: str = "", *, width: int = 1400, height: int = 900, dark: bool = False
    ):
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        address = path.resolve().as_uri()
        page.on(
            "console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None
        )
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("popup", lambda other: wrong.append(f"popup: {other.url}"))

        def asked(request) -> None:
            if request.url.partition("#")[0] != address and not request.url.startswith(("data:", "blob:")):
                wrong.append(f"request: {request.url}")

        page.on("request", asked)
        page.goto(address + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
