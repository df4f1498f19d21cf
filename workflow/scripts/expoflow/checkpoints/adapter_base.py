"""An adapter's base: which of its tensors an adapter changes, and which are tied, found by the
class as in peft."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from expoflow.checkpoints import classes
from expoflow.checkpoints.adapter import MERGE, Adapter
from expoflow.checkpoints.architecture import flat
from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.checkpoints.header import Tensor
from expoflow.checkpoints.tensor_names import unwrapped
from expoflow.errors import CheckpointError


@dataclass(frozen=True)
class Base:
    """A base and its class. If the class cannot be asked, `model` is None and `reason` says why.

    `places` maps the class' own names to the base's names. `torn` are tensors of the adapter that
    are tied to others, which the adapter does not change in the same way. If there are any, the
    result ties nothing. Tensors that the base has only by a tie then become separate: `own` maps
    their names to the base's tensor that they start from.
    """

    checkpoint: Checkpoint
    model: classes.ModelClass | None
    reason: str = ""
    places: dict[str, str] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    own: dict[str, str] = field(default_factory=dict)

    def find(self, target: str) -> str | None:
        """The result's name of an adapter's tensor: the same name, or another one for the same
        tensor of the class."""
        target = unwrapped(target)
        return target if target in self.checkpoint.tensors else self.places.get(self.place(target))

    def tensor(self, name: str) -> Tensor:
        """The tensor in the base for a name in the result."""
        return self.checkpoint.tensors[self.own.get(name, name)]

    def place(self, target: str) -> str:
        """The class' own name of a tensor, or `target` itself if the class does not know it."""
        target = unwrapped(target)
        return (self.model.place(target) if self.model else None) or target

    def tied(self, target: str) -> frozenset[str]:
        """The class' own names of all tensors that are tied to this one, itself included; empty if
        none is."""
        if not self.model or not self.model.shares(self.place(target)):
            return frozenset()
        source = self.model.tie(self.place(target))
        return frozenset(each for each in self.model.tensors if self.model.tie(each) == source)

    def stored(self, target: str) -> str | None:
        """The base's name of this tensor, or of a tensor that is tied to it."""
        tied = (self.places[each] for each in sorted(self.tied(target)) if each in self.places)
        return self.find(target) or next(tied, None)

    def tokens(self, name: str) -> int | None:
        """The dimension of a tensor that counts tokens; None if there is none or the class is not
        known."""
        return self.model.vocabulary.get(self.place(name)) if self.model else None

    def lacks(self, target: str, own_base: str) -> str:
        """Why a tensor has no place in the base, with the remedy; `own_base` is the remedy if the
        base is wrong."""
        if self.model and unwrapped(target) in self.model.parts:
            return f"the base's class makes one tensor of it and others; {MERGE}"
        if self.model and self.model.converted and self.place(target) in self.model.tensors:
            return f"the base's files have it in another layout than its class; {MERGE}"
        if self.reason:
            return f"not in the base under this name, and its class cannot be asked for another one: {self.reason}"
        return f"not in the base; {own_base}"


def base_of(checkpoint: Checkpoint, adapter: Adapter) -> Base:
    """`checkpoint` as the base of `adapter`. Tied tensors that the adapter changes differently
    become untied."""
    modules = (f"{module.name}.{part}" for module in adapter.modules for part in ("weight", "bias"))
    try:
        model = classes.ask(checkpoint, map(unwrapped, (*adapter.whole, *modules)))
    except CheckpointError as error:
        return Base(checkpoint, None, str(error))
    places = {place: name for name in checkpoint.tensors if (place := model.place(name))}
    base = Base(checkpoint, model, places=places)
    lora = {f"{module.name}.weight" for module in adapter.modules}
    groups = {target: base.tied(target) for target in sorted({*lora, *adapter.whole})}
    torn = tuple(
        target for target, group in groups.items() if group and not _alike(base, adapter, group, lora)
    )
    if not torn:
        return base
    # a config can only switch off all ties at once
    own = {name: source for name in model.tensors if name not in places and (source := _source(base, name))}
    return replace(base, places=places | {name: name for name in own}, torn=torn, own=own)


def _source(base: Base, name: str) -> str | None:
    """The base's name of the tensor that a tied tensor of the class shares its values with."""
    return base.stored(name) if base.model.shares(name) else None


def _alike(base: Base, adapter: Adapter, group: frozenset[str], lora: set[str]) -> bool:
    """Whether the adapter stores all tensors of a group with the same values, so they stay tied."""
    keys = {base.place(target): key for target, key in adapter.whole.items() if base.place(target) in group}
    views = [adapter.file.view(key) for key in keys.values()]
    whole = keys.keys() == group and all(view == views[0] for view in views)
    return whole and not any(base.place(target) in group for target in lora)


def perhaps_tied(base: Base, adapter: Adapter, changed: list[str]) -> Iterator[str]:
    """Changed tensors that may be tied, if no class can be asked: those with at least as many rows
    as tokens.

    `changed` are names in the base or the adapter.
    """
    said = list(flat(base.checkpoint.config))
    if {value for key, value in said if key.endswith("tie_word_embeddings")} == {False}:
        return
    tokens = min((value for key, value in said if key.endswith("vocab_size") and value), default=0)
    for name in changed:
        tensor = base.checkpoint.tensors.get(name) or adapter.file.tensors[adapter.whole[name]]
        if len(tensor.shape) > 1 and tensor.shape[0] >= tokens:
            yield (
                f"changes {name}, and whether that is tied to another tensor is not known: {base.reason}; if nothing is tied,"
                f" write tie_word_embeddings: false into {base.checkpoint.users / 'config.json'}"
            )
