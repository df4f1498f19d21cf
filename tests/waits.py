"""Waiting in tests."""

import time
from collections.abc import Callable


def wait(condition: Callable[[], object]) -> None:
    """Until the condition holds, for 1200 looks: time in which the tests are stopped does not count."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited for two minutes")
