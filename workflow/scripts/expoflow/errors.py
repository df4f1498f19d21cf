"""Exceptions. Every message names the thing, the value and the remedy, on one line a problem."""

import re
from collections.abc import Iterable

# What a terminal would obey instead of showing: control characters, and those that turn the writing direction.
UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """`text` as it may go to a terminal: what would be obeyed there stands as an escape, such as \\x1b."""
    return UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_of(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are, for a message."""
    first, *more = names
    return f"{first} and {len(more)} more" if more else first


class ExpoflowError(Exception):
    """A problem that the user can solve: shown without a traceback."""

    def __str__(self) -> str:
        return shown(super().__str__())


class ConfigError(ExpoflowError):
    """The config is not usable; `problems` holds all of its errors, one line each."""

    def __init__(self, problems: list[str]):
        self.problems = [shown(problem).replace("\n", "\\n") for problem in problems]
        super().__init__("\n".join(self.problems))


class CheckpointError(ExpoflowError):
    """A checkpoint folder is missing, broken or of a kind that is refused."""


class PairError(ExpoflowError):
    """Two checkpoints that cannot be extrapolated together."""


class DataError(ExpoflowError):
    """A prompt file, a generations file or a table does not hold what it should."""


class JudgeError(ExpoflowError):
    """A judge that cannot be asked: no key, no answer, or no money left under its ceiling."""
