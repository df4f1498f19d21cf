"""Find the elements of a class' tensor in files that store its parts, such as single experts.

Transformers' loader stacks and concatenates the tensors of the files. Both operations move whole
rows. So each stretch of a class' tensor is a stretch of a tensor in the files and is read in place.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.checkpoints.classes import Conversion, ModelClass
from expoflow.checkpoints.findings import Finding
from expoflow.errors import first_of

ONE_LAYOUT = (
    "load both models with transformers 5 (from_pretrained) and save them again (save_pretrained with"
    " save_original_format=False), so that both have the same layout"
)
OPERATION = re.compile(r"(MergeModulelist|Concatenate)\(dim=(\d+)\)")


@dataclass(frozen=True)
class Stretch:
    """`count` elements of the tensor `name`, from its element `first` on."""

    name: str
    first: int
    count: int


# By the name of theta1's tensor: its stretches in order, each with that of theta0.
Pieces = dict[str, list[tuple[Stretch, Stretch]]]


class Stored(Protocol):
    """A checkpoint with its class; `places` maps the class' names to names in the files."""

    checkpoint: Checkpoint
    model: ModelClass
    places: Mapping[str, str]


class UnknownLayoutError(Exception):
    """A tensor is made from the files by more than stacking and concatenating."""


def pieces_of(
    sft: Stored, aligned: Stored, unmatched: tuple[list[str], list[str]]
) -> tuple[Pieces, list[Finding]]:
    """Return the tensors of aligned that sft stores in another layout, and the findings.

    `unmatched` has the names without a counterpart in sft and in aligned.
    """
    pieces: Pieces = {}
    failed: list[tuple[str, UnknownLayoutError]] = []
    for place in sorted({*sft.model.converted, *aligned.model.converted}):
        stored = [_names(each, place) for each in (sft, aligned)]
        if not all(names and names <= set(left) for names, left in zip(stored, unmatched, strict=True)):
            continue  # matched by name, or in one model only
        try:
            stretches = list(_together(_layout(aligned, place), _layout(sft, place)))
        except UnknownLayoutError as error:
            failed.append((place, error))
            continue
        for one, two in stretches:
            pieces.setdefault(one.name, []).append((one, two))
    for each in pieces.values():
        each.sort(key=lambda pair: pair[0].first)
    return pieces, [*_said(pieces), *_failed(failed)]


def _names(stored: Stored, place: str) -> set[str]:
    """Return the names in the files of the parts of a class' tensor."""
    if place in stored.model.converted:
        return {name for part in stored.model.converted[place].parts for name in part}
    return {stored.places[place]} if place in stored.places else set()


def _said(pieces: Pieces) -> Iterator[Finding]:
    if pieces:
        others = first_of(dict.fromkeys(two.name for _, two in next(iter(pieces.values()))))
        text = f"tensor {first_of(pieces)}: in sft its elements are in {others}; its class loads both as one tensor"
        yield Finding("note", "tensors", text)


def _failed(failed: list[tuple[str, UnknownLayoutError]]) -> Iterator[Finding]:
    if failed:
        names, (error, *_) = zip(*failed, strict=True)
        text = f"tensor {first_of(names)} of the class: sft and aligned store it in two layouts, and {error}; {ONE_LAYOUT}"
        yield Finding("error", "layout", text)


def _layout(stored: Stored, place: str) -> list[Stretch]:
    """Return the stretches of `place`, a tensor of the class, in the order of memory.

    Raises UnknownLayoutError.
    """
    size = math.prod(stored.model.tensors[place])
    if place not in stored.model.converted:
        return [Stretch(stored.places[place], 0, size)]
    found = [
        Stretch(name, rows[0] * width, len(rows) * width)
        for rows, name, width in _rows(stored.checkpoint, stored.model.converted[place])
    ]
    if (held := sum(each.count for each in found)) != size:
        raise UnknownLayoutError(f"its {size} elements do not match the {held} of its parts")
    return found


def _rows(checkpoint: Checkpoint, conversion: Conversion) -> Iterator[tuple[range, str, int]]:
    """Yield (rows, the tensor that has them, elements per row) of the tensor that the loader makes.

    A row has one index in every dimension except the last. Every row has a number. `starts` has the
    number of each tensor's first row, with a gap before it, so that numbers of two tensors are
    never consecutive.
    """
    names = [name for part in conversion.parts for name in part]
    shapes = {name: checkpoint.tensors[name].shape for name in names}
    widths = {shape[-1] if len(shape) > 1 else 1 for shape in shapes.values()}
    if len(widths) != 1:
        raise UnknownLayoutError("its parts have rows of different lengths")
    width, starts, at = widths.pop(), [], 0
    arrays: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        outer = shape[:-1] if len(shape) > 1 else shape
        starts.append(at)
        arrays[name] = np.arange(at, at + math.prod(outer)).reshape(outer)
        at += math.prod(outer) + 1
    numbers = _converted(
        [[arrays[name] for name in part] for part in conversion.parts], conversion.operations
    ).ravel()
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    for piece in np.split(numbers, breaks):
        if len(piece):
            tensor = int(np.searchsorted(starts, piece[0], side="right")) - 1
            first = int(piece[0]) - starts[tensor]
            yield range(first, first + len(piece)), names[tensor], width


def _converted(parts: list[list[np.ndarray]], operations: list[str]) -> np.ndarray:
    """Apply the loader's operations to the row numbers of the parts."""
    parts = [part for part in parts if part]  # a pattern may be an alternative spelling
    for text in operations:
        found = OPERATION.fullmatch(text)
        if not found:
            raise UnknownLayoutError(f"the operation {text} is not supported here")
        dim = int(found[2])
        arrays = [array for part in parts for array in part]
        if dim >= arrays[0].ndim + (found[1] == "MergeModulelist"):
            raise UnknownLayoutError(f"the operation {text} works within its rows")
        try:
            if found[1] == "MergeModulelist":
                parts = [[np.stack(part, axis=dim)] for part in parts]
            else:
                parts = [[np.concatenate(arrays, axis=dim)]]
        except ValueError as error:
            raise UnknownLayoutError(f"the operation {text} does not fit its parts ({error})") from None
    if [len(part) for part in parts] != [1]:
        raise UnknownLayoutError("its parts stay separate tensors")
    return parts[0][0]


def _together(theta1: list[Stretch], theta0: list[Stretch]) -> Iterator[tuple[Stretch, Stretch]]:
    """Cut two layouts of the same size so that their stretches match one to one."""
    ours, theirs = list(theta1)[::-1], list(theta0)[::-1]
    while ours and theirs:
        one, two = ours.pop(), theirs.pop()
        count = min(one.count, two.count)
        yield Stretch(one.name, one.first, count), Stretch(two.name, two.first, count)
        for each, rest in ((one, ours), (two, theirs)):
            if each.count > count:
                rest.append(Stretch(each.name, each.first + count, each.count - count))
