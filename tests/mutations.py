"""Mutations of valid input, drawn from a `random.Random` that hypothesis gives, so that it can make a failure smaller."""

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

ODD = (
    None, True, False, 0, -1, 1, 7, 10**12, -(10**30), 0.5, float("inf"), "", " ", "x", "..", "/", "é", "\x00", "<s>", "user",
    [], [None], [[]], {}, {"a": None}, "9" * 400, "{{ messages }}",
)  # fmt: skip


def paths(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The place of everything in JSON data, from the outside in."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield from paths(each, (*at, key))


def mutated_json(value: Any, random: Random, odd: tuple = ODD) -> Any:
    """`value` with one to three places changed: taken out, doubled, renamed, or holding something else."""
    value = copy.deepcopy(value)
    for _ in range(random.randint(1, 3)):
        places = [path for path in paths(value) if path]
        if not places:
            return value
        *outer, key = random.choice(places)
        inside = value
        for step in outer:
            inside = inside[step]
        kind = random.choice(["odd", "odd", "gone", "other", "twice"])
        if kind == "gone":
            del inside[key]
        elif kind == "other" and isinstance(inside, dict):
            inside[random.choice([f"{key}s", str(key).upper(), f" {key}", "x"])] = inside.pop(key)
        elif kind == "twice" and isinstance(inside, list):
            inside.insert(key, copy.deepcopy(inside[key]))
        elif kind == "other" and isinstance(inside[key], str):
            inside[key] = mutated_text(inside[key], random)
        else:
            inside[key] = copy.deepcopy(random.choice(odd))
    return value


def mutated_text(text: str, random: Random) -> str:
    """`text` with a piece taken out, doubled, moved, or put in from a list of what breaks texts."""
    if not text:
        return random.choice(["x", "{%", "\ud800"])
    start = random.randrange(len(text))
    stop = min(len(text), start + random.choice([1, 2, 5, 20, 200]))
    piece = text[start:stop]
    put = random.choice(
        [
            "",
            piece * 2,
            piece[::-1],
            "{{",
            "{% endif %}",
            "\x00",
            "'",
            "\n",
            " ",
            "user",
            "\u2028",
            "bos_token",
        ]
    )
    return text[:start] + put + text[stop:]


def mutated_bytes(data: bytes, random: Random) -> bytes:
    """`data` cut short, or with bytes taken out, doubled or changed."""
    if not data:
        return b"\xff"
    start = random.randrange(len(data))
    kind = random.choice(["cut", "out", "twice", "other", "other", "front"])
    stop = min(len(data), start + random.choice([1, 3, 16, 300]))
    if kind == "cut":
        return data[:start]
    if kind == "out":
        return data[:start] + data[stop:]
    if kind == "twice":
        return data[:stop] + data[start:]
    if kind == "front":
        return random.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"[", b"PK\x03\x04", b"\x1f\x8b"]) + data
    return data[:start] + random.choice([b"\x00", b"\xff", b'"', b"{", b",", b"9" * 30]) + data[stop:]


def as_json(value: Any) -> str:
    """JSON as files have it, with NaN and what is no Unicode."""
    return json.dumps(value, ensure_ascii=True)
