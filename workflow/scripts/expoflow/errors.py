"""Exceptions. Every message names the thing, the value and the remedy, with one line per
problem."""

import re
from collections.abc import Iterable

# Characters that a terminal would act on instead of showing: control characters, and those that
# change the writing direction.
UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """`text` made safe for a terminal: control characters become escapes such as \\x1b."""
    return UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_of(names: Iterable[str]) -> str:
    """For a message: the first of some names, and the number of the others."""
    first, *more = names
    return f"{first} and {len(more)} more" if more else first


class ExpoflowError(Exception):
    """A problem that the user can solve: shown without a traceback."""

    def __str__(self) -> str:
        return shown(super().__str__())


class ConfigError(ExpoflowError):
    """An unusable config; `problems` holds all of its errors, one line each."""

    def __init__(self, problems: list[str]):
        self.problems = [shown(problem).replace("\n", "\\n") for problem in problems]
        super().__init__("\n".join(self.problems))


class CheckpointError(ExpoflowError):
    """A checkpoint folder that is missing, broken or of an unsupported kind."""


class PairError(ExpoflowError):
    """Two checkpoints that cannot be extrapolated together."""


class DataError(ExpoflowError):
    """A prompt file, a generations file or a table with wrong content."""


class JudgeError(ExpoflowError):
    """A judge that cannot be asked: no key, no answer, or no money left under its ceiling."""
