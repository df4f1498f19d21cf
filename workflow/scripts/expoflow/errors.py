"""Exceptions. Every message names the thing, the value and the remedy, on one line a problem."""


class ExpoflowError(Exception):
    """A problem that the user can solve: shown without a traceback."""


class ConfigError(ExpoflowError):
    """The config is not usable; `problems` holds all of its errors, one line each."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join(problems))


class CheckpointError(ExpoflowError):
    """A checkpoint folder is missing, broken or of a kind that is refused."""


class PairError(ExpoflowError):
    """Two checkpoints that cannot be extrapolated together."""


class DataError(ExpoflowError):
    """A prompt file, a generations file or a table does not hold what it should."""


class JudgeError(ExpoflowError):
    """A judge that cannot be asked: no key, no answer, or no money left under its ceiling."""
