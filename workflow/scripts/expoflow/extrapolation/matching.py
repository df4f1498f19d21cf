"""Match each tensor of theta1 with one of theta0, with the help of the models' classes.

Tensors of one name belong together. If a name is in one model only, the class decides: two names
can mean the same tensor, and a tied tensor need not be stored. If names, shapes and configs are the
same, no class is loaded.
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
    """A stored tensor of `checkpoint` (`role`) that its class ties to `source`, also stored.

    `scaled` is `scales_by_tie` of the class.
    """

    checkpoint: Checkpoint
    role: str
    name: str
    source: str
    scaled: bool

    def problem(self) -> str | None:
        """Return the error if the two differ: transformers 5 loads two tensors then, others one."""
        one, other = (self.checkpoint.tensors[name] for name in (self.name, self.source))
        if (one.dtype, one.shape) == (other.dtype, other.shape) and self.checkpoint.view(
            self.name
        ) == self.checkpoint.view(self.source):
            return None
        text = (
            f"{self.role} ties {self.name} to {self.source} by its config.json or its class' default, and stores other values"
            " in each: transformers 5 loads both, transformers 4 and vLLM only the latter"
        )
        if self.scaled:
            return f"{text}; delete {self.name} from its files if the latter was trained"
        return (
            f"{text}; write tie_word_embeddings: false into {self.checkpoint.users / 'config.json'} if both were trained,"
            f" else delete {self.name} from its files"
        )


class Classes:
    """The classes of sft and aligned, loaded when something depends on them."""

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
        """Whether they have been loaded."""
        return "_answer" in vars(self)

    @property
    def both(self) -> tuple[ModelClass, ModelClass] | None:
        """Both models' classes; None if one of them cannot be loaded."""
        return None if isinstance(self._answer, str) else self._answer

    @property
    def one(self) -> tuple[ModelClass, ModelClass] | None:
        """Both models' classes, as built from their config.json, if they are the same class."""
        return self.both if self.both and self.both[0].name == self.both[1].name else None

    def tokens(self, name: str) -> int | None:
        """Return the token dimension of a tensor of aligned, by its class; None if it has none."""
        return self.both[1].vocabulary.get(self.both[1].place(name)) if self.both else None

    def converts(self, name: str) -> bool:
        """Whether both models' classes load the stored tensor of this name by a conversion."""
        return bool(self.one) and all(name in each.parts for each in self.one)

    def knows(self, role: str, name: str) -> bool:
        """Whether the class of `role` loads this tensor, alone or as a part of another."""
        model = self.both[role == "aligned"]
        return model.place(name) is not None or name in model.parts

    def twin(self, role: str, name: str) -> str | None:
        """Return another tensor of `role` that its class loads as the same one."""
        model, tensors = self.both[role == "aligned"], self.checkpoints[role == "aligned"].tensors
        place = model.place(name)
        return next((each for each in tensors if each != name and place and model.place(each) == place), None)

    @property
    def reason(self) -> str:
        """Why one of the classes cannot be loaded; empty if both can."""
        return self._answer if isinstance(self._answer, str) else ""


@dataclass(frozen=True)
class Matching:
    """How the tensors of two checkpoints match.

    `theta0` maps aligned's names to sft's. `unmatched` lists the names that only sft has and those
    that only aligned has. `copies` are tied tensors that one model stores besides their source, if
    the result depends on their equality. `pieces` has, by aligned's name, the stretches of sft for
    a tensor that the two models lay out differently.
    """

    theta0: dict[str, str]
    unmatched: tuple[list[str], list[str]]
    copies: tuple[Copy, ...] = ()
    pieces: Pieces = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def match(sft: Checkpoint, aligned: Checkpoint, asked: Classes) -> Matching:
    """Match tensors by name, and those that only one model has by the class.

    The class is used only if both models have the same one.
    """
    found = {name: name for name in aligned.tensors if name in sft.tensors}
    only0, only1 = _only(sft, found), _only(aligned, found)
    if not (only0 or only1 or asked.asked) or not asked.one:
        return Matching(found, (only0, only1))
    stored0, stored1 = (_Stored(*each) for each in zip((sft, aligned), asked.one, strict=True))
    # one name may mean different tensors of the class
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
    """Return the names of a checkpoint's weights that are not in `found`."""
    return [name for name, tensor in checkpoint.tensors.items() if name not in found and not constant(tensor)]


def _ignored(only0: list[str], only1: list[str]) -> Iterator[Finding]:
    for names, text in ((only0, "in sft only are left out"), (only1, "in aligned only are kept as they are")):
        if names:
            yield Finding(
                "note", "tensors", f"tensors that their class does not load {text}: {first_of(names)}"
            )


class _Stored:
    """The tensors of a checkpoint.

    `places` maps the class' names to the files' names; `tied` has one name for tied tensors.
    """

    def __init__(self, checkpoint: Checkpoint, model: ModelClass):
        self.checkpoint, self.model = checkpoint, model
        self.places = {place: name for name in checkpoint.tensors if (place := model.place(name))}
        own = {name: name for name in checkpoint.tensors if name in self.places}
        self.places |= own  # preferred to another name of the same tensor
        self.tied = {model.tie(place): name for place, name in self.places.items()}
        self.tied |= {place: name for place, name in self.places.items() if place in self.tied}

    def left(self, names: list[str], done: Container[str]) -> tuple[list[str], list[str]]:
        """Split the names that are not `done`.

        First come those that the class needs or does not know, then those that it ignores.
        """
        rest = [name for name in names if name not in done]
        ignored = set(self.model.ignored)
        return [name for name in rest if name not in ignored], [name for name in rest if name in ignored]

    def copy_of(self, name: str, other: "_Stored", found: dict[str, str]) -> str | None:
        """Return the match of the tensor of `other` to which both classes tie `name`; else None."""
        place = self.model.place(name)
        if place is None or not (self.model.shares(place) and other.model.shares(place)):
            return None
        theirs = other.tied.get(other.model.tie(place))
        return found.get(theirs) if theirs else None

    def copy(self, role: str, one: str, other: str) -> Copy:
        """Return two stored tensors that are tied; the source is the one that the class ties to."""
        if (place := self.model.place(one)) == self.model.tie(place):
            one, other = other, one
        return Copy(self.checkpoint, role, one, other, self.model.scales_by_tie)


def _copies(role: str, stored: _Stored, names: list[str]) -> Iterator[Copy]:
    """Yield those of the names that are tied to another stored tensor."""
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
    """Yield what differs between the configs.

    They are compared as the classes read them, or as written if a class cannot be loaded.
    """
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
    """Yield tensors, such as embeddings, that one model ties and the other does not."""
    if more := sorted(set(theirs.tied) - set(ours.tied)):
        yield Finding(
            "error",
            "config",
            f"aligned ties {more[0]} to {theirs.tie(more[0])} by its config.json or its class' default, and sft does not:"
            " after the extrapolation they are two tensors; save both models untied",
        )
    stored = {theirs.place(name) for name in aligned.tensors}
    for name in sorted(set(ours.tied) - set(theirs.tied)):
        if theirs.scales_by_tie:
            text = f"{name} is tied to {ours.tie(name)} in sft and not in aligned, and logits may be scaled by the tie"
            yield Finding("error", "config", f"{text}; give two models that tie alike")
        elif name in stored:
            text = f"{name} is tied to {ours.tie(name)} in sft and not in aligned: in sft it equals {ours.tie(name)}"
            yield Finding("note", "config", text)
        else:
            yield Finding(
                "error",
                "config",
                f"aligned does not tie {name} by its config.json, and has no such tensor; save it with {name}, or write"
                f" tie_word_embeddings: true into {aligned.users / 'config.json'}",
            )
