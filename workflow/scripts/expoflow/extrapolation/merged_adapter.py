"""An adapter on its base as theta1: base + scaling * B @ A, computed where it is read and never rounded.

Rounding theta1 to bf16 before it is extrapolated would multiply the rounding by 1 + alpha; in float64, theta1 +
alpha * (theta1 - theta0) is base + (1 + alpha) * scaling * B @ A to the last bit that counts.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow import store
from expoflow.checkpoints.adapter import Adapter, Module
from expoflow.checkpoints.checkpoint import ADAPTER, SOURCE, Checkpoint, read_json_file
from expoflow.checkpoints.header import FLOATS, Tensor, relaid
from expoflow.checkpoints.package import copy_package, package_files
from expoflow.checkpoints.tensor_names import EMBEDDING, HEAD
from expoflow.errors import PairError
from expoflow.files import hashing
from expoflow.files.folder import appearing
from expoflow.files.records import write_json

if TYPE_CHECKING:
    import torch


CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")  # models whose weights are (in, out)
TOKENIZER = re.compile(
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|(additional_)?chat_template).*|.*\.(model|jinja|tiktoken)"
)


@dataclass(frozen=True)
class Factor:
    """A matrix of the adapter's file, transposed or not; a vector is one column."""

    name: str
    shape: tuple[int, int]
    transposed: bool = False


@dataclass(frozen=True)
class Update:
    """What is added to a tensor of the base: scaling * left @ right; without `right`, scaling * left."""

    left: Factor
    right: Factor | None
    scaling: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is added."""
        return (self.left.shape[0], self.right.shape[1]) if self.right else self.left.shape[:1]


@dataclass(frozen=True, kw_only=True)
class Merged(Checkpoint):
    """theta1 as a checkpoint: the base's headers, values of base and adapter, and a folder without weights.

    `updates` and `whole` (the adapter's own name of a tensor stored whole) are by the base's tensor names.
    """

    base: Checkpoint
    adapter: Adapter
    updates: dict[str, Update] = field(repr=False)
    whole: dict[str, str] = field(repr=False)

    @property
    def sources(self) -> list[Path]:
        """The adapter's files; those of the base are the SFT model's."""
        return [self.adapter.file.folder / ADAPTER, *self.adapter.file.sources]

    @property
    def index(self) -> dict:
        """The base's."""
        return self.base.index

    def fetch(self, name: str, first: int, last: int) -> None:
        """Bring what elements [first, last) of one tensor are made of into memory."""
        source, stored = self._stored(name)
        source.fetch(stored, first, last)

    def scattered(self) -> AbstractContextManager[None]:
        """The base's; the adapter is small."""
        return self.base.scattered()

    def view(self, name: str) -> memoryview:
        """The bytes of a tensor that the adapter does not change."""
        return self.base.view(name)

    def stores(self, name: str) -> bool:
        """Whether the adapter leaves the tensor as it is."""
        return name not in self.updates and name not in self.whole

    def values(self, name: str, first: int = 0, last: int | None = None) -> "torch.Tensor":
        """Elements [first, last) of one tensor, in float64 where LoRA changes them."""
        last = self.tensors[name].elements if last is None else last
        source, stored = self._stored(name)
        values = source.values(stored, first, last)
        if name not in self.updates or first >= last:
            return values
        return self._added(self.updates[name], first, last).add_(values)

    def _stored(self, name: str) -> tuple[Checkpoint, str]:
        return (self.adapter.file, self.whole[name]) if name in self.whole else (self.base, name)

    def _added(self, update: Update, first: int, last: int) -> "torch.Tensor":
        """Elements [first, last) of scaling * left @ right, a new tensor: the rows that have them, computed whole."""
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
    """The adapter on `base`; a PairError with everything of the adapter that the base has no place for."""
    problems: list[str] = []
    whole = _place_whole(base, adapter, problems)
    shapes = {name: adapter.file.tensors[key].shape for name, key in whole.items()}
    updates = _place_updates(base, adapter, shapes, problems)
    problems += _tied_problems(base, updates, whole, adapter)
    problems += [
        f"tensor {name} is {base.tensors[name].dtype} in the base: an adapter cannot be added to it; {_other_base(adapter)}"
        for name in [*updates, *whole]
        if base.tensors[name].dtype not in FLOATS.values()
    ]
    if problems:
        raise PairError("\n".join(f"adapter {adapter.folder}: {each}" for each in dict.fromkeys(problems)))
    return _checkpoint(base, adapter, updates, whole, shapes)


def _place_whole(base: Checkpoint, adapter: Adapter, problems: list[str]) -> dict[str, str]:
    """The adapter's name of each tensor stored whole, by the base's; what has no place is added to `problems`."""
    whole: dict[str, str] = {}
    for target, key in adapter.whole.items():
        tensor, name = adapter.file.tensors[key], _resolve(base, target)
        if name is None and _is_tied(base, target):
            twin = next((each for other, each in adapter.whole.items() if EMBEDDING.search(other)), None)
            if twin is None or adapter.file.view(key) != adapter.file.view(twin):
                problems.append(_tied(target))
        elif name is None:
            problems.append(f"tensor {target}: in the adapter, not in the base; {_other_base(adapter)}")
        elif name in whole:
            problems.append(f"tensor {target}: there twice, also as {whole[name]}; save the adapter again")
        elif tensor.shape != base.tensors[name].shape and not _resized(name, tensor, base.tensors[name]):
            problems.append(_shapes(name, tensor.shape, base.tensors[name], adapter))
        else:
            whole[name] = key
    return whole


def _place_updates(
    base: Checkpoint, adapter: Adapter, shapes: dict[str, tuple[int, ...]], problems: list[str]
) -> dict[str, Update]:
    """What LoRA adds, by the base's names; `shapes` are those of tensors that the adapter stores whole."""
    updates: dict[str, Update] = {}
    for module in adapter.modules:
        for target, candidates in _updates(base, adapter, module):
            name = _resolve(base, target)
            if name is None:
                lacks = f"not in the base; {_other_base(adapter)}"
                problems.append(f"module {module.name}: {_tied(target) if _is_tied(base, target) else lacks}")
                continue
            shape = shapes.get(name, base.tensors[name].shape)
            update = next((each for each in candidates if each.shape == shape), None)
            if name in updates:
                problems.append(f"module {module.name}: there twice, for {name}; save the adapter again")
            elif update is None:
                problems.append(_shapes(name, candidates[0].shape, base.tensors[name], adapter))
            else:
                updates[name] = update
    return updates


def _checkpoint(
    base: Checkpoint,
    adapter: Adapter,
    updates: dict[str, Update],
    whole: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
) -> Merged:
    resized = {name for name, shape in shapes.items() if shape != base.tensors[name].shape}
    shards = tuple(
        relaid(shard, lambda tensor: replace(tensor, shape=shapes.get(tensor.name, tensor.shape)))
        if any(tensor.name in resized for tensor in shard.tensors)
        else shard
        for shard in base.shards
    )
    rows = next((shapes[name][0] for name in sorted(resized)), None)
    folder = _package(base.folder, adapter.folder, rows)
    note = (
        f"aligned is a {adapter.describe()}; {len({*updates, *whole})} of {len(base.tensors)} tensors change"
    )
    notes = [note]
    if adapter.originals:
        notes.append(f"untrained originals in the adapter have no part: {', '.join(adapter.originals)}")
    return Merged(
        folder,
        shards,
        read_json_file(folder / "config.json"),
        tuple(notes),
        base=base,
        adapter=adapter,
        updates=updates,
        whole=whole,
    )


def _updates(base: Checkpoint, adapter: Adapter, module: Module) -> Iterator[tuple[str, list[Update]]]:
    """(name that the tensor should have, updates it may stand for) of one module: the shape decides."""
    tensors, scaling = module.tensors, module.scaling
    if bias := tensors.get("lora_B.bias"):
        yield f"{module.name}.bias", [Update(Factor(bias.name, (bias.elements, 1)), None, scaling)]
    if "lora_embedding_A" in tensors:
        a, b = tensors["lora_embedding_A"], tensors["lora_embedding_B"]
        candidates = [_swapped(a, b, scaling)]
    else:
        a, b = tensors["lora_A.weight"], tensors["lora_B.weight"]
        candidates = [Update(Factor(b.name, b.shape), Factor(a.name, a.shape), scaling)]
        # peft's flag is that of the last module; others, such as a head, may be the other way round.
        if base.config.get("model_type") in CONV1D or adapter.settings.get("fan_in_fan_out"):
            candidates.insert(0, _swapped(a, b, scaling))
    yield f"{module.name}.weight", candidates


def _swapped(a: Tensor, b: Tensor, scaling: float) -> Update:
    """(B @ A) transposed: A.T @ B.T."""
    return Update(Factor(a.name, a.shape[::-1], True), Factor(b.name, b.shape[::-1], True), scaling)


def _resolve(base: Checkpoint, target: str) -> str | None:
    """The base's own name of a tensor: checkpoints may lack the model's outermost prefix, or have one more."""
    inner = target
    while inner:
        if inner in base.tensors and inner.count(".") >= 1:
            return inner
        inner = inner.partition(".")[2]
    longer = [name for name in base.tensors if name.endswith(f".{target}")]
    return longer[0] if len(longer) == 1 else None


def _resized(name: str, ours: Tensor, theirs: Tensor) -> bool:
    """Whether it is a vocabulary of another size, for which the pair's check has a rule."""
    return ours.shape[1:] == theirs.shape[1:] and bool(EMBEDDING.search(name) or HEAD.search(name))


def _is_tied(base: Checkpoint, target: str) -> bool:
    return base.config.get("tie_word_embeddings") is True and bool(HEAD.search(target))


def _tied_problems(
    base: Checkpoint, updates: dict[str, Update], whole: dict[str, str], adapter: Adapter
) -> Iterator[str]:
    """Changes of one of two tied tensors, which a model with the adapter and a merged one understand differently."""
    if base.config.get("tie_word_embeddings") is not True:
        return
    both = any(HEAD.search(name) for name in adapter.whole)
    for name in (*updates, *whole):
        if HEAD.search(name) or (EMBEDDING.search(name) and (name in updates or not both)):
            yield _tied(name)


def _tied(name: str) -> str:
    return (
        f"changes {name}, and the base ties head and embedding: merged and unmerged are two different models; "
        "merge it with peft as it was trained, with tie_word_embeddings: false in the config, and give both models so"
    )


def _shapes(name: str, ours: tuple[int, ...], theirs: Tensor, adapter: Adapter) -> str:
    one, other = ("x".join(map(str, shape)) for shape in (ours, theirs.shape))
    return f"tensor {name} is {one} in the adapter and {other} in the base; {_other_base(adapter)}"


def _other_base(adapter: Adapter) -> str:
    name = adapter.settings.get("base_model_name_or_path") or "the model that it was trained on"
    return f"give the adapter's own base as sft ({name})"


def _package(base: Path, adapter: Path, rows: int | None) -> Path:
    """theta1's config and tokenizer, in the store: the base's, with the tokenizer of the adapter where it has one."""
    own = [name for name in package_files(adapter) if name != "config.json"]
    complete = "tokenizer_config.json" in own
    names = [
        each
        for each in package_files(base)
        if each not in own and not (complete and TOKENIZER.fullmatch(each))
    ]
    key = {"rows": rows, "base": {name: hashing.sha256(base / name) for name in names}}
    key["adapter"] = {name: hashing.sha256(adapter / name) for name in own}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    target = store.root() / "converted" / f"adapter-{digest}"
    if not (target / SOURCE).is_file():
        with appearing(target, replace=True) as new:
            copy_package(base, new, "keep", names)
            copy_package(adapter, new, "keep", own)
            if rows and (config := read_json_file(new / "config.json")):
                write_json(new / "config.json", config | {"vocab_size": rows})
            write_json(new / SOURCE, key)
    return target
