"""The first entries of a set, for a rehearsal."""

import json
from pathlib import Path

from expoflow.files.atomic import write_text
from expoflow.files.records import read_text


def write_first(source: Path, target: Path, count: int) -> None:
    """Write the first `count` entries of a file unchanged.

    The file is a JSON list, a JSON object with a list `questions`, or JSON lines. Raises DataError
    for a file that cannot be read.
    """
    text = read_text(source)
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if isinstance(data, list):
        data = data[:count]
    elif isinstance(data, dict) and isinstance(data.get("questions"), list):
        data["questions"] = data["questions"][:count]
    else:
        return write_text(target, "".join(f"{line}\n" for line in text.split("\n")[:count] if line))
    write_text(target, json.dumps(data, ensure_ascii=False, indent=2) + "\n")
