"""An adapter on its base as theta1: base + scaling * B @ A, computed on reading and never rounded.

Rounding theta1 to bf16 before the extrapolation would multiply the rounding error by 1 + alpha. In
float64, theta1 + alpha * (theta1 - theta0) equals base + (1 + alpha) * scaling * B @ A to the last
relevant bit.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expoflow import store
from expoflow.checkpoints import classes
from expoflow.checkpoints.adapter import MERGE, Adapter, Module
from expoflow.checkpoints.adapter_base import Base, base_of, perhaps_tied
from expoflow.checkpoints.checkpoint import ADAPTER, SOURCE, Checkpoint, read_json_file
from expoflow.checkpoints.header import FLOATS, Shard, Tensor, relaid
from expoflow.checkpoints.package import copy_package, package_files
from expoflow.errors import PairError
from expoflow.files import hashing
from expoflow.files.folder import appearing
from expoflow.files.records import write_json

if TYPE_CHECKING:
    import torch


TOKENIZER = re.compile(
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|(additional_)?chat_template).*|.*\.(model|jinja|tiktoken)"
)


@dataclass(frozen=True)
class Factor:
    """A matrix of the adapter's file, perhaps transposed; a vector is one column."""

    name: str
    shape: tuple[int, int]
    transposed: bool = False


@dataclass(frozen=True)
class Update:
    """The update of a base tensor: scaling * left @ right, or scaling * left without `right`."""

    left: Factor
    right: Factor | None
    scaling: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the update."""
        return (self.left.shape[0], self.right.shape[1]) if self.right else self.left.shape[:1]


@dataclass(frozen=True, kw_only=True)
class Merged(Checkpoint):
    """theta1 as a checkpoint: the base's headers, values of both, and a folder without weights.

    `updates`, and `whole` with the adapter's name of a tensor that it stores whole, have the base's
    tensor names as keys. `origins` maps the adapter's name of such a tensor to the base's tensor
    that it replaces, even if that one is tied to another. `own` has tensors that the base has only
    by a tie; it maps each to the base's tensor that it starts from.
    """

    base: Checkpoint
    adapter: Adapter
    updates: dict[str, Update] = field(repr=False)
    whole: dict[str, str] = field(repr=False)
    origins: dict[str, str] = field(repr=False)
    own: dict[str, str] = field(repr=False)

    @property
    def sources(self) -> list[Path]:
        """The adapter's files; the base's files belong to the SFT model."""
        return [self.adapter.file.folder / ADAPTER, *self.adapter.file.sources]

    @property
    def index(self) -> dict:
        """The base's index, with the tensors that the base has only by a tie."""
        index = self.base.index
        if index and self.own:
            index["weight_map"] |= {name: self.shard_of[name].path.name for name in self.own}
        return index

    def fetch(self, name: str, first: int, last: int) -> None:
        """Read into memory what elements [first, last) of one tensor are made of."""
        source, stored = self._stored(name)
        source.fetch(stored, first, last)

    def scattered(self) -> AbstractContextManager[None]:
        """Prepare for reading scattered small pieces of the base; the adapter is small."""
        return self.base.scattered()

    def view(self, name: str) -> memoryview:
        """Return the bytes of a tensor that the adapter does not change."""
        return self.base.view(self.own.get(name, name))

    def stores(self, name: str) -> bool:
        """Whether the adapter leaves the tensor as it is."""
        return name not in self.updates and name not in self.whole

    def values(self, name: str, first: int = 0, last: int | None = None) -> "torch.Tensor":
        """Return elements [first, last) of one tensor, in float64 if LoRA changes it."""
        last = self.tensors[name].elements if last is None else last
        source, stored = self._stored(name)
        values = source.values(stored, first, last)
        if name not in self.updates or first >= last:
            return values
        return self._added(self.updates[name], first, last).add_(values)

    def _stored(self, name: str) -> tuple[Checkpoint, str]:
        if name in self.whole:
            return self.adapter.file, self.whole[name]
        return self.base, self.own.get(name, name)

    def _added(self, update: Update, first: int, last: int) -> "torch.Tensor":
        """Return elements [first, last) of scaling * left @ right in a new tensor.

        Rows are computed whole.
        """
        columns = update.right.shape[1] if update.right else 1
        start, stop = first // columns, -(-last // columns)
        rows = self._matrix(update.left)[start:stop].double()
        if update.right:
            rows = rows @ self._matrix(update.right).double()
        rows = rows * update.scaling
        return rows.flatten()[first - start * columns : last - start * columns]

    def _matrix(self, factor: Factor) -> "torch.Tensor":
        values = self.adapter.file.values(factor.name)
        return values.view(factor.shape[::-1]).T if factor.transposed else values.view(factor.shape)


def merged(base: Checkpoint, adapter: Adapter) -> Merged:
    """Return the adapter on `base`; raise PairError with all that does not fit the base."""
    problems: list[str] = []
    known = base_of(base, adapter)
    whole, origins = _place_whole(known, adapter, problems)
    shapes = {name: adapter.file.tensors[key].shape for name, key in whole.items()}
    updates = _place_updates(known, adapter, shapes, problems)
    if known.reason:
        problems += perhaps_tied(known, adapter, [*adapter.whole, *updates])
    changed = {name: known.tensor(name) for name in (*updates, *whole)}
    problems += [
        f"tensor {name} is {tensor.dtype} in the base: an adapter cannot be added to it; {_other_base(adapter)}"
        for name, tensor in changed.items()
        if tensor.dtype not in FLOATS.values()
    ]
    problems += [
        f"{name} and {source}, which the base ties, have different numbers of rows; {MERGE}"
        for name, source in known.own.items()
        if len({shapes.get(each, known.tensor(each).shape)[:1] for each in (name, source)}) > 1
    ]
    if known.torn and known.model.scales_by_tie:
        problems.append(
            f"changes {', '.join(known.torn)}, which the base ties to others, and an encoder-decoder cannot be untied, for its"
            " logits may be scaled by the tie; train the adapter without them"
        )
    if problems:
        raise PairError("\n".join(f"adapter {adapter.folder}: {each}" for each in dict.fromkeys(problems)))
    made = _checkpoint(known, adapter, updates, whole, origins, shapes)
    if known.torn and (tied := classes.ask(made).tied):
        name, source = next(iter(tied.items()))
        raise PairError(
            f"adapter {adapter.folder}: changes {', '.join(known.torn)}, and its class ties {name} to {source} in any case; {MERGE}"
        )
    return made


def _place_whole(base: Base, adapter: Adapter, problems: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return `whole` and `origins` of `Merged`; add what does not fit to `problems`."""
    whole: dict[str, str] = {}
    origins: dict[str, str] = {}
    for target, key in adapter.whole.items():
        tensor, name, origin = adapter.file.tensors[key], base.find(target), base.stored(target)
        if origin is None:
            problems.append(f"tensor {target}: in the adapter, {base.lacks(target, _other_base(adapter))}")
            continue
        theirs = base.tensor(origin)
        # a vocabulary of another size: the pair's check has a rule for it
        resized = tensor.shape[1:] == theirs.shape[1:] and base.tokens(origin) == 0
        if name in whole:
            problems.append(f"tensor {target}: there twice, also as {whole[name]}; save the adapter again")
        elif tensor.shape != theirs.shape and not resized:
            problems.append(_shapes(origin, tensor.shape, theirs, adapter))
        else:
            origins[key] = theirs.name
            whole |= {name: key} if name else {}
    return whole, origins


def _place_updates(
    base: Base, adapter: Adapter, shapes: dict[str, tuple[int, ...]], problems: list[str]
) -> dict[str, Update]:
    """Return LoRA's updates by the base's names; add what does not fit to `problems`.

    `shapes` are those of tensors that the adapter stores whole.
    """
    updates: dict[str, Update] = {}
    for module in adapter.modules:
        for target, candidates in _updates(base, adapter, module):
            name = base.find(target)
            if name is None:
                problems.append(f"module {module.name}: {base.lacks(target, _other_base(adapter))}")
                continue
            theirs = base.tensor(name)
            update = next((each for each in candidates if each.shape == shapes.get(name, theirs.shape)), None)
            if name in updates:
                problems.append(f"module {module.name}: there twice, for {name}; save the adapter again")
            elif update is None:
                problems.append(_shapes(name, candidates[0].shape, theirs, adapter))
            else:
                updates[name] = update
    return updates


def _checkpoint(
    base: Base,
    adapter: Adapter,
    updates: dict[str, Update],
    whole: dict[str, str],
    origins: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
) -> Merged:
    checkpoint = base.checkpoint
    resized = {name for name, shape in shapes.items() if shape != base.tensor(name).shape}
    rows = next((shapes[name][0] for name in sorted(resized)), None)
    folder = _package(checkpoint.folder, adapter.folder, rows, untied=bool(base.torn))
    count = len({*updates, *whole})
    notes = [f"aligned is a {adapter.describe()}; {count} of {len(checkpoint.tensors)} tensors change"]
    if base.torn:
        notes.append(
            f"the adapter changes {', '.join(base.torn)}, which the base ties to others: theta1 ties nothing, as with peft and a loaded"
            " adapter; a merge into the tied base gives another model"
        )
    if adapter.originals:
        notes.append(f"untrained originals in the adapter are ignored: {', '.join(adapter.originals)}")
    return Merged(
        folder,
        tuple(_shard(shard, base, shapes, resized) for shard in checkpoint.shards),
        read_json_file(folder / "config.json"),
        tuple(notes),
        given=checkpoint.users,
        base=checkpoint,
        adapter=adapter,
        updates=updates,
        whole=whole,
        origins=origins,
        own=base.own,
    )


def _shard(shard: Shard, base: Base, shapes: dict[str, tuple[int, ...]], resized: set[str]) -> Shard:
    """Return the base's shard, or one with the result's shapes and untied tensors.

    An untied tensor is added to the shard of the tensor that it was tied to.
    """
    stored = {tensor.name: tensor for tensor in shard.tensors}
    own = [replace(stored[source], name=name) for name, source in base.own.items() if source in stored]
    if not own and resized.isdisjoint(stored):
        return shard
    return relaid(
        replace(shard, tensors=(*shard.tensors, *own)),
        lambda tensor: replace(tensor, shape=shapes.get(tensor.name, tensor.shape)),
    )


def _updates(base: Base, adapter: Adapter, module: Module) -> Iterator[tuple[str, list[Update]]]:
    """Yield (expected tensor name, possible updates) for one module.

    If the class is known, it decides on the update; otherwise the shape does.
    """
    tensors, scaling = module.tensors, module.scaling
    if bias := tensors.get("lora_B.bias"):
        yield f"{module.name}.bias", [Update(Factor(bias.name, (bias.elements, 1)), None, scaling)]
    if "lora_embedding_A" in tensors:
        a, b = tensors["lora_embedding_A"], tensors["lora_embedding_B"]
        candidates = [_swapped(a, b, scaling)]
    else:
        a, b = tensors["lora_A.weight"], tensors["lora_B.weight"]
        plain, swapped = (
            Update(Factor(b.name, b.shape), Factor(a.name, a.shape), scaling),
            _swapped(a, b, scaling),
        )
        if base.model:
            conv1d = base.place(f"{module.name}.weight") in base.model.conv1d
            candidates = [swapped if conv1d else plain]
        else:  # peft's flag is that of the last module; others, such as a head, may differ
            candidates = [swapped, plain] if adapter.settings.get("fan_in_fan_out") else [plain]
    yield f"{module.name}.weight", candidates


def _swapped(a: Tensor, b: Tensor, scaling: float) -> Update:
    """Return (B @ A) transposed: A.T @ B.T."""
    return Update(Factor(a.name, a.shape[::-1], True), Factor(b.name, b.shape[::-1], True), scaling)


def _shapes(name: str, ours: tuple[int, ...], theirs: Tensor, adapter: Adapter) -> str:
    one, other = ("x".join(map(str, shape)) for shape in (ours, theirs.shape))
    return f"tensor {name} is {one} in the adapter and {other} in the base; {_other_base(adapter)}"


def _other_base(adapter: Adapter) -> str:
    name = adapter.settings.get("base_model_name_or_path") or "the model that it was trained on"
    return f"give the adapter's own base as sft ({name})"


def _without_ties(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without ties, including those of inner models."""
    inner = {
        key: _without_ties(each)
        for key, each in config.items()
        if isinstance(each, dict) and (key == "text_config" or "model_type" in each)
    }
    return config | inner | {"tie_word_embeddings": False}


def _package(base: Path, adapter: Path, rows: int | None, untied: bool) -> Path:
    """Return a folder of the store with theta1's config and tokenizer.

    They are the base's, but the tokenizer is the adapter's if it has one. The config's vocabulary
    size is `rows`, unless that is None; with `untied` it has no ties.
    """
    own = [name for name in package_files(adapter) if name != "config.json"]
    complete = "tokenizer_config.json" in own
    names = [
        each
        for each in package_files(base)
        if each not in own and not (complete and TOKENIZER.fullmatch(each))
    ]
    key = {"rows": rows, "untied": untied, "base": {name: hashing.sha256(base / name) for name in names}}
    key["adapter"] = {name: hashing.sha256(adapter / name) for name in own}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    target = store.root() / "converted" / f"adapter-{digest}"
    if not (target / SOURCE).is_file():
        with appearing(target, replace=True) as new:
            copy_package(base, new, "keep", names)
            copy_package(adapter, new, "keep", own)
            if (rows or untied) and (config := read_json_file(new / "config.json")):
                config |= {"vocab_size": rows} if rows else {}
                write_json(new / "config.json", _without_ties(config) if untied else config)
            write_json(new / SOURCE, key)
    return target
