"""What the tests of TRL share."""

import time
from collections.abc import Callable


def wait(for_what: Callable[[], object], seconds: float = 300) -> None:
    """Until it is so."""
    end = time.monotonic() + seconds
    while not for_what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
