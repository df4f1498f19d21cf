"""Tests of TRL are skipped, with the reason, if the extra is not installed."""

import importlib.util

import pytest
from expoflow.checks.machine import TRAIN_EXTRA

MISSING = [package for package in TRAIN_EXTRA if importlib.util.find_spec(package) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "trl" in item.keywords and MISSING:
            item.add_marker(pytest.mark.skip(reason=f"{', '.join(MISSING)} not installed: make test-trl"))
