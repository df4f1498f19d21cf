"""Take screenshots of a run's pages, wide and narrow, light and dark, for docs/pages.md.

Needs Chromium and the extra `test`:

    python bench/screenshots.py results docs/pages --pair mini20
"""

import argparse
import io
import shutil
from pathlib import Path

from expoflow.paths import Results
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

COLOURS = 64  # enough for text and lines
# For each page: where to scroll, and which element shows that it is drawn.
PAGES = {"report": ("#curves", "body[data-drawn=yes]"), "answers": (None, "#prompt-title:not(:empty)")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pair", required=True, help="whose answers are shown")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    places = {"report": results.report, "answers": results.answers_page(arguments.pair)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, path in places.items():
            for width in (1400, 400):
                for scheme in ("light", "dark"):
                    taken = take(browser, path, width, scheme, *PAGES[name])
                    taken.save(arguments.out / f"{name}-{width}-{scheme}.png", optimize=True)
        browser.close()


def take(browser: Browser, path: Path, width: int, scheme: str, place: str | None, drawn: str) -> Image.Image:
    """Take one screenshot of a page, with few colours."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(path.resolve().as_uri())
    page.wait_for_selector(drawn)
    if place:
        page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
    picture = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    return picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
