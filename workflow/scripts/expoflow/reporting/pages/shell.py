"""The frame of every page: styles, scripts and data are in the file, and nothing else can run.

Nothing is fetched. Texts that a model wrote are data in base64, and the page's script sets them as
text. The content security policy names the hashes of the page's own scripts. No other script can
run, whatever a text contains.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from expoflow.files.atomic import write_text

ASSETS = Path(__file__).with_name("assets")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{styles}
</head>
<body>
{body}
{data}
{scripts}
</body>
</html>
"""


def write_page(
    page: Path,
    *,
    title: str,
    body: str,
    styles: Iterable[str],
    scripts: Iterable[str],
    data: Mapping[str, Any],
    library: str = "",
) -> None:
    """Write a page.

    `body` and `title` are HTML, with texts already escaped. `styles` and `scripts` are names of
    files in assets/, in order. `library` is a script that comes before them. `data` has JSON values
    by the id of the element that holds them; unpack(id) of unpack.js returns them.
    """
    style = "\n".join(asset(name) for name in styles)
    code = [*filter(None, [library]), "\n".join(asset(name) for name in scripts)]
    write_text(
        page,
        PAGE.format(
            policy=policy(code, style),
            title=title,
            styles=f"<style>{style}</style>",
            body=body,
            data="\n".join(
                f'<script type="text/plain" id="{name}">{packed(value)}</script>'
                for name, value in data.items()
            ),
            scripts="\n".join(f"<script>{inline(each)}</script>" for each in code),
        ),
    )


def asset(name: str) -> str:
    """The text of a file of the pages."""
    return (ASSETS / name).read_text(encoding="utf-8")


def policy(scripts: Iterable[str], style: str) -> str:
    """The content security policy of a page.

    It allows the page's own scripts and styles and images in data URLs, and nothing else.
    """
    own = " ".join(f"'sha256-{_sha256(inline(each))}'" for each in scripts)
    return (
        f"default-src 'none'; script-src {own}; style-src 'sha256-{_sha256(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def inline(script: str) -> str:
    """A script that can be embedded in a page: it does not contain the end of its own element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def packed(value: Any) -> str:
    """A JSON value, compressed, in base64. The same value always gives the same bytes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
