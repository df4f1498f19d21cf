"""Write the pages of docs/reference/: python docs/build/reference.py, or make reference."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "reference"


def pages() -> dict[str, str]:
    """The generated pages, by the name of their file."""
    sys.path.insert(0, str(Path(__file__).parent))
    import commands_page
    import config_page

    return {"configuration.md": config_page.page(), "commands.md": commands_page.page()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
