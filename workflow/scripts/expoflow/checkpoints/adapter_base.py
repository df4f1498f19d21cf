"""An adapter's base: which of its tensors an adapter means, and which of them are tied; as peft finds them, by the class."""

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
    """A base and what its class says; `model` is None and `reason` says why if the class cannot be asked.

    `places` has the base's names by the class' own. `torn`: tensors of the adapter that are tied to others which it does not
    change alike. If there are any, the result ties nothing, and has tensors of its `own` for those that the base has by a tie
    alone: by their names the base's tensor that they begin as.
    """

    checkpoint: Checkpoint
    model: classes.ModelClass | None
    reason: str = ""
    places: dict[str, str] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    own: dict[str, str] = field(default_factory=dict)

    def find(self, target: str) -> str | None:
        """The name in the result of a tensor of the adapter: the same, or another one for the same tensor of the class."""
        target = unwrapped(target)
        return target if target in self.checkpoint.tensors else self.places.get(self.place(target))

    def tensor(self, name: str) -> Tensor:
        """What a tensor is in the base by its name in the result."""
        return self.checkpoint.tensors[self.own.get(name, name)]

    def place(self, target: str) -> str:
        """The class' own name of a tensor; the name itself if the class does not know it."""
        target = unwrapped(target)
        return (self.model.place(target) if self.model else None) or target

    def tied(self, target: str) -> frozenset[str]:
        """The class' own names of all tensors that share the values of this one by a tie; empty if none does."""
        if not self.model or not self.model.shares(self.place(target)):
            return frozenset()
        source = self.model.tie(self.place(target))
        return frozenset(each for each in self.model.tensors if self.model.tie(each) == source)

    def stored(self, target: str) -> str | None:
        """The base's name of this tensor, or of one that is tied to it."""
        tied = (self.places[each] for each in sorted(self.tied(target)) if each in self.places)
        return self.find(target) or next(tied, None)

    def tokens(self, name: str) -> int | None:
        """The dimension of a tensor that counts tokens; None if none does, or the class is not known."""
        return self.model.vocabulary.get(self.place(name)) if self.model else None

    def lacks(self, target: str, own_base: str) -> str:
        """Why there is no place for a tensor, with the remedy, which may be to give its `own_base`."""
        if self.model and unwrapped(target) in self.model.parts:
            return f"the base's class makes one tensor of it and others; {MERGE}"
        if self.model and self.model.converted and self.place(target) in self.model.tensors:
            return f"the base's files have it in another layout than its class; {MERGE}"
        if self.reason:
            return f"not in the base under this name, and its class cannot be asked for another one: {self.reason}"
        return f"not in the base; {own_base}"


def base_of(checkpoint: Checkpoint, adapter: Adapter) -> Base:
    """`checkpoint` as the base of `adapter`, whose changes untie what they change apart."""
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
    # a config says of all ties at once that there are none
    own = {name: source for name in model.tensors if name not in places and (source := _source(base, name))}
    return replace(base, places=places | {name: name for name in own}, torn=torn, own=own)


def _source(base: Base, name: str) -> str | None:
    """The base's name of a tensor that another one of the class is tied to."""
    return base.stored(name) if base.model.shares(name) else None


def _alike(base: Base, adapter: Adapter, group: frozenset[str], lora: set[str]) -> bool:
    """Whether the adapter stores all tensors of a group, with the same values: they stay tied."""
    keys = {base.place(target): key for target, key in adapter.whole.items() if base.place(target) in group}
    views = [adapter.file.view(key) for key in keys.values()]
    whole = keys.keys() == group and all(view == views[0] for view in views)
    return whole and not any(base.place(target) in group for target in lora)


def perhaps_tied(base: Base, adapter: Adapter, changed: list[str]) -> Iterator[str]:
    """What may be tied if no class can be asked: of `changed`, names in base or adapter, what has as many rows as there are tokens."""
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
