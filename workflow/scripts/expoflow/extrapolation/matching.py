"""Which tensor of theta0 belongs to each one of theta1, and what the classes of both say of them.

Tensors of one name belong together. If a name is in one model only, the class decides: two names can stand for one tensor of
it, and a tensor that is tied to another one need not be stored. Without a difference in names, shapes or configs no class is
asked.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from expoflow.checkpoints import classes
from expoflow.checkpoints.architecture import alike, differences
from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.checkpoints.classes import ModelClass
from expoflow.checkpoints.findings import Finding
from expoflow.checkpoints.tensor_names import constant
from expoflow.errors import CheckpointError, first_of
from expoflow.extrapolation.layout import Pieces, pieces_of


@dataclass(frozen=True)
class Copy:
    """A tensor that `checkpoint` (`role`) stores though its class ties it to `source`, which is there too.

    `scaled`: as `scales_by_tie` of the class.
    """

    checkpoint: Checkpoint
    role: str
    name: str
    source: str
    scaled: bool

    def problem(self) -> str | None:
        """What is wrong if the two differ: transformers 5 then takes them for two tensors, others for one."""
        one, other = (self.checkpoint.tensors[name] for name in (self.name, self.source))
        if (one.dtype, one.shape) == (other.dtype, other.shape) and self.checkpoint.view(
            self.name
        ) == self.checkpoint.view(self.source):
            return None
        text = (
            f"{self.role} ties {self.name} to {self.source} by its config.json or its class' default, and stores other values"
            " in each: transformers 5 loads both, transformers 4 and vLLM the latter alone"
        )
        if self.scaled:
            return f"{text}; delete {self.name} from its files if the latter was trained"
        return (
            f"{text}; write tie_word_embeddings: false into {self.checkpoint.users / 'config.json'} if both were trained,"
            f" else delete {self.name} from its files"
        )


class Classes:
    """The classes of sft and aligned, asked when something depends on them."""

    def __init__(self, sft: Checkpoint, aligned: Checkpoint):
        self.checkpoints = sft, aligned

    @cached_property
    def _answer(self) -> tuple[ModelClass, ModelClass] | str:
        try:
            sft, aligned = map(classes.ask, self.checkpoints)
        except CheckpointError as error:
            return str(error)
        return sft, aligned

    @property
    def asked(self) -> bool:
        """Whether something has depended on them."""
        return "_answer" in vars(self)

    @property
    def both(self) -> tuple[ModelClass, ModelClass] | None:
        """What both say; None if one of them cannot be asked."""
        return None if isinstance(self._answer, str) else self._answer

    @property
    def one(self) -> tuple[ModelClass, ModelClass] | None:
        """What both say, if they are one class, each as its config.json has it built."""
        return self.both if self.both and self.both[0].name == self.both[1].name else None

    def tokens(self, name: str) -> int | None:
        """The dimension of this tensor of aligned that counts tokens by its class; None if none does."""
        return self.both[1].vocabulary.get(self.both[1].place(name)) if self.both else None

    def converts(self, name: str) -> bool:
        """Whether the classes have a tensor of this name, in the files of both, only after a conversion."""
        return bool(self.one) and all(name in each.parts for each in self.one)

    def knows(self, role: str, name: str) -> bool:
        """Whether the class of `role` has a place for one of its tensors, alone or with others."""
        model = self.both[role == "aligned"]
        return model.place(name) is not None or name in model.parts

    def twin(self, role: str, name: str) -> str | None:
        """Another tensor of `role` that its class loads as the same one."""
        model, tensors = self.both[role == "aligned"], self.checkpoints[role == "aligned"].tensors
        place = model.place(name)
        return next((each for each in tensors if each != name and place and model.place(each) == place), None)

    @property
    def reason(self) -> str:
        """Why one cannot be asked; empty if they can."""
        return self._answer if isinstance(self._answer, str) else ""


@dataclass(frozen=True)
class Matching:
    """`theta0`: sft's name by aligned's. `unmatched`: names that sft alone has, and those that aligned alone has.

    `copies` are tied tensors that one model stores beside their source, if the result depends on their being equal.
    `pieces` says, by aligned's name, of which stretches of sft a tensor is made that the two lay out differently.
    """

    theta0: dict[str, str]
    unmatched: tuple[list[str], list[str]]
    copies: tuple[Copy, ...] = ()
    pieces: Pieces = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def match(sft: Checkpoint, aligned: Checkpoint, asked: Classes) -> Matching:
    """By name; tensors that one model alone has by what the classes of both say of them, if that is one class."""
    found = {name: name for name in aligned.tensors if name in sft.tensors}
    only0, only1 = _only(sft, found), _only(aligned, found)
    if not (only0 or only1 or asked.asked) or not asked.one:
        return Matching(found, (only0, only1))
    stored0, stored1 = (_Stored(*each) for each in zip((sft, aligned), asked.one, strict=True))
    # one name may stand for two tensors of the class
    found = {name: name for name in found if stored0.model.place(name) == stored1.model.place(name)}
    only0, only1 = _only(sft, found), _only(aligned, found)
    renamed = {}
    for name in only1:
        place = stored1.model.place(name)
        if theta0 := place and stored0.places.get(place):
            renamed[name] = theta0
        elif theta0 := place and stored0.tied.get(stored0.model.tie(place)):
            found[name] = theta0
    found |= renamed
    used = set(found.values())
    left = {name: stored0.copy_of(name, stored1, found) for name in only0 if name not in used}
    copies = [stored0.copy("sft", name, source) for name, source in left.items() if source]
    copies += _copies("aligned", stored1, [name for name in only1 if name not in renamed])
    untied = set(stored0.model.tied) - set(stored1.model.tied)
    copies += _copies("sft", stored0, [name for place, name in stored0.places.items() if place in untied])
    unmatched = (
        [name for name, source in left.items() if not source],
        [name for name in only1 if name not in found],
    )
    pieces, findings = pieces_of(stored0, stored1, unmatched)
    if any(each.level == "error" for each in findings):
        return Matching(found, ([], []), findings=tuple(findings))
    sources = {two.name for each in pieces.values() for _, two in each}
    (only0, ignored0), (only1, ignored1) = (
        stored0.left(unmatched[0], sources),
        stored1.left(unmatched[1], pieces),
    )
    findings += [*_renamed(renamed), *_ignored(ignored0, ignored1)]
    return Matching(found, (only0, only1), tuple(copies), pieces, tuple(findings))


def _only(checkpoint: Checkpoint, found: Mapping[str, str]) -> list[str]:
    """The weights of a checkpoint whose names are not among `found`."""
    return [name for name, tensor in checkpoint.tensors.items() if name not in found and not constant(tensor)]


def _ignored(only0: list[str], only1: list[str]) -> Iterator[Finding]:
    for names, text in ((only0, "in sft only are left out"), (only1, "in aligned only are kept as they are")):
        if names:
            yield Finding(
                "note", "tensors", f"tensors that their class does not load {text}: {first_of(names)}"
            )


class _Stored:
    """The tensors of a checkpoint: `places` has their names by the class' own, `tied` one name for all that share values."""

    def __init__(self, checkpoint: Checkpoint, model: ModelClass):
        self.checkpoint, self.model = checkpoint, model
        self.places = {place: name for name in checkpoint.tensors if (place := model.place(name))}
        own = {name: name for name in checkpoint.tensors if name in self.places}
        self.places |= own  # before another name for the same tensor
        self.tied = {model.tie(place): name for place, name in self.places.items()}
        self.tied |= {place: name for place, name in self.places.items() if place in self.tied}

    def left(self, names: list[str], done: Container[str]) -> tuple[list[str], list[str]]:
        """Of the names that are not `done` those that the class needs or does not know, and those that it leaves out."""
        rest = [name for name in names if name not in done]
        ignored = set(self.model.ignored)
        return [name for name in rest if name not in ignored], [name for name in rest if name in ignored]

    def copy_of(self, name: str, other: "_Stored", found: dict[str, str]) -> str | None:
        """The tensor whose values `name` has too by both classes, and that one of `other` is extrapolated with."""
        place = self.model.place(name)
        if place is None or not (self.model.shares(place) and other.model.shares(place)):
            return None
        theirs = other.tied.get(other.model.tie(place))
        return found.get(theirs) if theirs else None

    def copy(self, role: str, one: str, other: str) -> Copy:
        """Two stored tensors that are tied; the one that the class ties the others to is the source."""
        if (place := self.model.place(one)) == self.model.tie(place):
            one, other = other, one
        return Copy(self.checkpoint, role, one, other, self.model.scales_by_tie)


def _copies(role: str, stored: _Stored, names: list[str]) -> Iterator[Copy]:
    """Those of the names that are tied to another tensor which is stored too."""
    for name in names:
        place = stored.model.place(name)
        source = stored.tied.get(stored.model.tie(place)) if place else None
        if source not in (None, name):
            yield stored.copy(role, name, source)


def _renamed(renamed: dict[str, str]) -> Iterator[Finding]:
    if renamed:
        theta0 = next(iter(renamed.values()))
        text = f"tensor {first_of(renamed)}: {theta0} in sft; its class loads both as one tensor"
        yield Finding("note", "tensors", text)


def configs(sft: Checkpoint, aligned: Checkpoint, asked: Classes) -> Iterator[Finding]:
    """What differs between the configs as the classes read them; as they stand there if a class cannot be asked."""
    if not sft.config or not aligned.config:
        lacking = " and ".join(role for role, each in (("sft", sft), ("aligned", aligned)) if not each.config)
        yield Finding(
            "warning", "config", f"{lacking} has no config.json: the architectures cannot be compared"
        )
        return
    if alike(sft.config, aligned.config):
        return
    read = [sft.config, aligned.config]
    if asked.both:
        read = [each.config | {"architectures": [each.name]} for each in asked.both]
    if asked.one:
        yield from _ties(aligned, *asked.one)
    for level, text in differences(*read, asked.reason):
        yield Finding(level, "config", text)


def _ties(aligned: Checkpoint, ours: ModelClass, theirs: ModelClass) -> Iterator[Finding]:
    """Embeddings that one model shares and the other does not."""
    if more := sorted(set(theirs.tied) - set(ours.tied)):
        yield Finding(
            "error",
            "config",
            f"aligned ties {more[0]} to {theirs.tie(more[0])} by its config.json or its class' default, and sft does not:"
            " extrapolated they are two tensors; save both models untied",
        )
    stored = {theirs.place(name) for name in aligned.tensors}
    for name in sorted(set(ours.tied) - set(theirs.tied)):
        if theirs.scales_by_tie:
            text = f"{name} is tied to {ours.tie(name)} in sft and not in aligned, and logits may be scaled by the tie"
            yield Finding("error", "config", f"{text}; give two models that tie alike")
        elif name in stored:
            text = (
                f"{name} is tied to {ours.tie(name)} in sft and not in aligned: sft's is its {ours.tie(name)}"
            )
            yield Finding("note", "config", text)
        else:
            yield Finding(
                "error",
                "config",
                f"aligned does not tie {name} by its config.json, and has no such tensor; save it with {name}, or write"
                f" tie_word_embeddings: true into {aligned.users / 'config.json'}",
            )
