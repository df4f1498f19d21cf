"""Regular expressions for wildcards that stand for one of many names."""

import re
from collections.abc import Iterable


def only(names: Iterable[str]) -> str:
    """Regular expression that matches exactly `names`, and nothing if there are none.

    Names with the same prefix share a branch, so the time of a match depends on the length of the
    name, not on the number of names. Snakemake tries the pattern on every file of a workflow, which
    may have thousands of names.
    """
    tree: dict = {}
    for name in names:
        branch = tree
        for letter in name:
            branch = branch.setdefault(letter, {})
        branch[""] = {}  # a name ends here
    return _branches(tree) if tree else "(?!)"


def _branches(tree: dict) -> str:
    """The pattern of what may follow. The end of a name comes last, so the longer of two names is
    tried first."""
    stem = ""
    while len(tree) == 1 and "" not in tree:
        letter, tree = next(iter(tree.items()))
        stem += re.escape(letter)
    letters = sorted(letter for letter in tree if letter)
    if not letters:
        return stem
    ways = [re.escape(letter) + _branches(tree[letter]) for letter in letters]
    return f"{stem}(?:{'|'.join(ways)}){'?' if '' in tree else ''}"
