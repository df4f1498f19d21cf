"""The files of a dataset, according to its card."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from expoflow.errors import DataError
from expoflow.files.formats import FORMATS, PACKED

CARD = "README.md"
SUFFIXES = tuple(
    each + packed for each in FORMATS for packed in ("", *PACKED)
)  # the first one that a split has is used
NUMBERED = re.compile(r"-(\d+)-of-(\d+)\.")


def split_files(card: str, names: Sequence[str], config: str | None, split: str, repo: str) -> list[str]:
    """The files of a split among the `names` of a dataset, in order.

    The dataset's `card` (its README.md) lists them. If it does not, they are the files with the
    split's name in their own. Raises DataError, which names the existing splits.
    """
    said = _said(card)
    if said:
        if config is None and len(said) > 1 and "default" not in said:
            raise DataError(f"{repo}: has the configurations {', '.join(said)}; add config: to choose one")
        chosen = config or ("default" if "default" in said else next(iter(said)))
        if chosen not in said:
            raise DataError(f"{repo}: no configuration '{chosen}'; its configurations are {', '.join(said)}")
        patterns = said[chosen]
        if split not in patterns:
            raise DataError(f"{repo}: no split '{split}'; its splits are {', '.join(patterns)}")
        found = [name for name in names if any(fnmatch.fnmatch(name, each) for each in patterns[split])]
    else:
        word = re.compile(rf"(^|[/.-]){re.escape(split)}([/.-]|$)")
        found = [
            name for name in names if word.search(name) and (config is None or config in name.split("/")[:-1])
        ]
    for suffix in SUFFIXES:
        if files := sorted(name for name in found if name.lower().endswith(suffix)):
            folders = sorted({name.rpartition("/")[0] for name in files})
            if not said and len(folders) > 1:
                raise DataError(f"{repo}: {split} is in {', '.join(folders)}; add config: to choose one")
            _require_all(repo, files)
            return files
    data = [name for name in names if name.lower().endswith(SUFFIXES)]
    raise DataError(
        f"{repo}: no Parquet, JSON or CSV files of split '{split}' (has: {', '.join(data[:8]) or 'none'}); correct "
        "split: and config:, or try revision: refs/convert/parquet"
    )


def said_rows(card: str, config: str | None, split: str) -> int | None:
    """Number of rows of a split according to the card's `dataset_info`; None if it is not
    stated."""
    infos = front_matter(card).get("dataset_info")
    for info in [infos] if isinstance(infos, Mapping) else infos or ():
        if info.get("config_name", "default") == (config or "default") or config is None:
            for each in info.get("splits") or ():
                if each.get("name") == split:
                    return each.get("num_examples")
    return None


def front_matter(card: str) -> dict[str, Any]:
    """The front matter of a README.md of the hub; {} if it is missing or broken."""
    front = re.match(r"\s*---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        content = yaml.safe_load(front[1]) if front else {}
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _said(card: str) -> dict[str, dict[str, list[str]]]:
    """Patterns of file names by configuration and split, from the card's front matter."""
    try:
        return {
            each["config_name"]: _patterns(each["data_files"])
            for each in front_matter(card).get("configs") or ()
            if "data_files" in each
        }
    except (AttributeError, KeyError, TypeError):
        return {}


def _patterns(data_files: Any) -> dict[str, list[str]]:
    if isinstance(data_files, list) and data_files and isinstance(data_files[0], Mapping):
        pairs = [(each["split"], each["path"]) for each in data_files]
    elif isinstance(data_files, Mapping):
        pairs = list(data_files.items())
    else:
        pairs = [("train", data_files)]
    return {split: [path] if isinstance(path, str) else list(path) for split, path in pairs}


def _require_all(repo: str, files: Sequence[str]) -> None:
    """Raise DataError unless all numbered files are there: a cache may hold only some of them."""
    numbered = [(int(found[1]), int(found[2])) for name in files if (found := NUMBERED.search(name))]
    if numbered and {number for number, _ in numbered} != set(range(numbered[0][1])):
        raise DataError(f"{repo}: {len(numbered)} of {numbered[0][1]} files are there; unset HF_HUB_OFFLINE")
