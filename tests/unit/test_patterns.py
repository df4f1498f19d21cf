"""Wildcard patterns: exactly the names, whatever they have in common, and fast for thousands of them."""

import re
import time

from expoflow.config.base import NAME
from expoflow.dag.wildcards import only
from hypothesis import given
from hypothesis import strategies as st

names = st.sets(st.from_regex(NAME, fullmatch=True).map(lambda name: name[:12]), max_size=20)


@given(names, st.from_regex(NAME, fullmatch=True))
def test_a_pattern_matches_its_names_and_nothing_else(known, other):
    pattern = re.compile(only(known))
    assert all(pattern.fullmatch(name) for name in known)
    assert bool(pattern.fullmatch(other)) == (other in known)


def test_a_name_that_begins_another_one_is_matched_inside_a_path():
    found = re.fullmatch(f"pairs/(?P<pair>{only(['a', 'a.b', 'ab', 'b'])})/(?P<file>.+)", "pairs/a.b/x")
    assert found["pair"] == "a.b"


def test_dots_are_dots():
    assert not re.fullmatch(only(["a.b"]), "axb")


def test_no_names_match_nothing():
    assert not re.search(only([]), "")


def seconds(count: int) -> float:
    pattern = re.compile(f"pairs/({only(f'model{number}' for number in range(count))})/best.json")
    path = f"pairs/model{count - 1}/best.json"
    begin = time.perf_counter()
    for _ in range(2000):
        assert pattern.fullmatch(path)
    return time.perf_counter() - begin


def test_a_match_takes_no_longer_for_a_hundred_times_as_many_names():
    assert min(seconds(10_000) for _ in range(3)) < 10 * min(seconds(100) for _ in range(3))
