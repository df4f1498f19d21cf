"""Check from headers and configs, before reading weights, whether a pair can be extrapolated.

All findings are returned, not only the first, and with them how each output tensor is made.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from expoflow.checkpoints.adapter import is_adapter, open_adapter, require_alone
from expoflow.checkpoints.checkpoint import Checkpoint, open_checkpoint
from expoflow.checkpoints.findings import Finding, is_ungathered, not_whole, quantised
from expoflow.checkpoints.header import INTEGERS, Tensor
from expoflow.checkpoints.pickles import converted
from expoflow.checkpoints.tensor_names import AGAIN, QUANTISED, constant, leftover, unwrapped
from expoflow.checkpoints.vocabulary import different_ids
from expoflow.checkpoints.whole import wholeness
from expoflow.errors import CheckpointError, PairError, first_of
from expoflow.extrapolation.layout import ONE_LAYOUT, Stretch
from expoflow.extrapolation.matching import Classes, Copy, Matching, configs, match
from expoflow.extrapolation.merged_adapter import merged

CONFLICTS = 0.01  # share of differing token ids above which the tokenizers count as different


@dataclass(frozen=True)
class PairedTensor:
    """How one output tensor is made.

    The first `shared` elements are computed by the formula, the rest is copied from theta1.

    `theta0` is None and `shared` is 0 for tensors that are kept as in theta1: constants, and those
    that only theta1 has. `equal` marks other integer tensors, which must have the same bytes in
    both models. If `whole` is set, `theta1` is the piece of that output tensor that begins at its
    element `first`.
    """

    theta1: Tensor
    theta0: Tensor | None
    shared: int
    equal: bool = False
    whole: Tensor | None = None
    first: int = 0

    @property
    def name(self) -> str:
        """The output tensor's name."""
        return (self.whole or self.theta1).name

    @property
    def tokens(self) -> int | None:
        """Number of tokens that both models have, if one has more; None if the shapes are equal."""
        if self.theta0 is None or self.theta1.shape == self.theta0.shape or not self.shared:
            return None
        at = _longer(self.theta1, self.theta0)
        return min(self.theta1.shape[at], self.theta0.shape[at])


@dataclass(frozen=True)
class Pair:
    """Two opened checkpoints, the findings, and the parts of the output in theta1's order.

    `copies` are those of `Matching`.
    """

    sft: Checkpoint
    aligned: Checkpoint
    findings: tuple[Finding, ...]
    parts: tuple[PairedTensor, ...]
    copies: tuple[Copy, ...] = ()

    @property
    def errors(self) -> list[str]:
        """Messages of the findings that prevent the extrapolation."""
        return [finding.message for finding in self.findings if finding.level == "error"]

    def require(self) -> None:
        """Raise a PairError with all errors, one line each."""
        if self.errors:
            raise PairError("\n".join(self.errors))


def open_pair(sft: Path, aligned: Path, vocabulary: str = "error") -> Pair:
    """Open two folders and compare them; raise if one cannot be opened."""
    return preflight(*open_both(sft, aligned), vocabulary)


def unequal(pair: Pair) -> list[str]:
    """Return what must have the same bytes but does not.

    This concerns integer tensors of both models, and tied tensors stored besides their source.
    """
    problems = [problem for each in pair.copies if (problem := each.problem())]
    for part in pair.parts:
        if part.equal and pair.sft.view(part.theta0.name) != pair.aligned.view(part.theta1.name):
            problems.append(
                f"tensor {part.theta1.name} ({part.theta1.dtype}) differs between sft and aligned: integers cannot be"
                " extrapolated; give two checkpoints of one model"
            )
    return problems


def open_both(sft: Path, aligned: Path) -> tuple[Checkpoint, Checkpoint]:
    """Open two folders; folders with only pickles are converted first.

    If aligned is an adapter, it is opened on sft, its base. Raises CheckpointError for broken or
    refused files, and PairError for an adapter that does not fit.
    """
    if is_adapter(sft):
        require_alone(sft)
        raise PairError(f"sft {sft} is an adapter; give a whole model: merge it (peft: merge_and_unload)")
    theta0 = open_checkpoint(converted(sft), sft)
    if not is_adapter(aligned):
        return theta0, open_checkpoint(converted(aligned), aligned)
    adapter = open_adapter(aligned)
    if refused := list(quantised(theta0, "sft (the adapter's base)")):
        raise PairError("\n".join(finding.message for finding in refused))
    return theta0, merged(theta0, adapter)


def preflight(sft: Checkpoint, aligned: Checkpoint, vocabulary: str = "error") -> Pair:
    """Compare two opened checkpoints without reading weights.

    `vocabulary` is "error" or "shared_rows".
    """
    findings = [Finding("note", "files", note) for each in (sft, aligned) for note in each.notes]
    for checkpoint, role in ((sft, "sft"), (aligned, "aligned")):
        findings += [*quantised(checkpoint, role), *not_whole(checkpoint, role)]
        findings += _leftover(checkpoint, role)
    asked = Classes(sft, aligned)
    findings += configs(sft, aligned, asked)
    matching = match(sft, aligned, asked)
    parts = []
    for name, theta1 in aligned.tensors.items():
        if name in matching.pieces:
            parts += _pieces(sft, aligned, matching.pieces[name])
        else:
            parts.append(_part(theta1, sft.tensors.get(matching.theta0.get(name, ""))))
    findings += [*matching.findings, *_missing(matching, asked), *_constants(sft, aligned, matching)]
    for part in parts:
        if part.theta0:
            findings += _compare(part.theta1, part.theta0, vocabulary, asked)
    findings += _tokenizers(sft, aligned, parts)
    pair = Pair(sft, aligned, tuple(findings), tuple(parts), matching.copies)
    if pair.errors:  # the classes would repeat these errors
        return pair
    findings += [*wholeness(sft, "sft"), *wholeness(aligned, "aligned")]
    return replace(pair, findings=tuple(findings))


def _part(theta1: Tensor, theta0: Tensor | None) -> PairedTensor:
    if theta0 is None or constant(theta1) or constant(theta0):
        return PairedTensor(theta1, None, 0)
    if theta1.dtype in INTEGERS or theta0.dtype in INTEGERS:
        return PairedTensor(theta1, theta0, 0, equal=True)
    alike = theta1.shape == theta0.shape or _longer(theta1, theta0) is not None
    return PairedTensor(theta1, theta0, min(theta1.elements, theta0.elements) if alike else 0)


def _longer(theta1: Tensor, theta0: Tensor) -> int | None:
    """Return the only dimension in which the shapes differ, or None.

    None also if the elements of the smaller tensor are not the first ones of the larger.
    """
    if len(theta1.shape) != len(theta0.shape):
        return None
    sizes = zip(theta1.shape, theta0.shape, strict=True)
    differing = [at for at, (one, other) in enumerate(sizes) if one != other]
    return differing[0] if len(differing) == 1 and math.prod(theta1.shape[: differing[0]]) == 1 else None


def _pieces(
    sft: Checkpoint, aligned: Checkpoint, stretches: list[tuple[Stretch, Stretch]]
) -> Iterator[PairedTensor]:
    """Yield the parts of one output tensor that sft has in other tensors or in pieces of one."""
    for one, two in stretches:
        theta1 = whole = aligned.tensors[one.name]
        if one.count < whole.elements:
            theta1 = aligned.piece(one.name, one.first, one.count)
        theta0 = replace(sft.piece(two.name, two.first, two.count), shape=theta1.shape)
        yield replace(_part(theta1, theta0), whole=whole if theta1 is not whole else None, first=one.first)


def _missing(matching: Matching, asked: Classes) -> Iterator[Finding]:
    for role, other, unmatched in zip(
        ("sft", "aligned"), ("aligned", "sft"), matching.unmatched, strict=True
    ):
        # quantised tensors and leftovers of training are reported for the model that has them
        names = [name for name in unmatched if not QUANTISED.search(name) and not leftover([name])]
        wrapped = {unwrapped(name) for name in matching.unmatched[role == "sft"] if leftover([name])}
        names = [name for name in names if name not in wrapped]
        if not names:
            continue
        if asked.one:
            needed = [name for name in names if asked.knows(role, name)]
            strange = [name for name in names if not asked.knows(role, name)]
            if needed and (twin := asked.twin(role, needed[0])):
                hint = f"its class loads it and {twin}, which is there too, as one tensor; delete one of them"
            else:
                hint = f"its class needs it; give the whole {other} model"
            yield from _unmatched(needed, role, other, hint)
            yield from _unmatched(strange, role, other, _strange(matching, role, other, asked))
        else:
            hint = "tied embeddings on one side, or another architecture; save both models alike"
            hint += f"; its class cannot be asked: {asked.reason}" if asked.reason else ""
            yield from _unmatched(names, role, other, hint)


def _unmatched(names: list[str], role: str, other: str, hint: str) -> Iterator[Finding]:
    if names:
        yield Finding("error", "tensors", f"tensor {first_of(names)}: in {role}, not in {other} ({hint})")


def _strange(matching: Matching, role: str, other: str, asked: Classes) -> str:
    """Return what to do about tensors that the class of `role` does not know."""
    own = set(matching.unmatched[role == "aligned"])
    lacking = (
        name for name in matching.unmatched[role == "sft"] if name not in own and asked.knows(other, name)
    )
    if needed := next(lacking, None):
        return (
            f"its class does not know it, and needs {needed}: save {role} with the names that its class has"
        )
    return f"its class does not know it: {AGAIN}"


def _leftover(checkpoint: Checkpoint, role: str) -> Iterator[Finding]:
    if text := leftover(checkpoint.tensors):
        yield Finding("error", "tensors", f"{role}: {text}")


def _constants(sft: Checkpoint, aligned: Checkpoint, matching: Matching) -> Iterator[Finding]:
    for name, source in matching.theta0.items():
        theta1, theta0 = aligned.tensors[name], sft.tensors[source]
        if constant(theta1) != constant(theta0):
            types = (f"{each.dtype} {_shape(each)}" for each in (theta0, theta1))
            text = f"tensor {name} is {' in sft and '.join(types)} in aligned: a constant buffer in one, a weight in the other"
            yield Finding("error", "types", f"{text}; give two checkpoints of one architecture")
    ours, theirs = (
        {name for name, tensor in each.tensors.items() if constant(tensor)} for each in (sft, aligned)
    )
    for names, text in (
        (
            (ours & aligned.tensors.keys()) | (theirs & sft.tensors.keys()),
            "are not extrapolated, aligned's are kept",
        ),
        (ours - aligned.tensors.keys(), "in sft only are left out"),
        (theirs - sft.tensors.keys(), "in aligned only are kept"),
    ):
        if names:
            yield Finding("note", "buffers", f"constant buffers {text}: {first_of(sorted(names))}")


def _compare(theta1: Tensor, theta0: Tensor, vocabulary: str, asked: Classes) -> Iterator[Finding]:
    if any(is_ungathered(each.name, each.shape) for each in (theta1, theta0)):
        return  # reported for the model that has it
    text = f"tensor {theta1.name} is {_shape(theta0)} in sft and {_shape(theta1)} in aligned"
    if INTEGERS & {theta1.dtype, theta0.dtype}:
        if (theta1.dtype, theta1.shape) != (theta0.dtype, theta0.shape):
            types = f"{theta0.dtype} and {theta1.dtype}"
            yield Finding(
                "error",
                "types",
                f"{text} ({types}): integer tensors must be equal; give two checkpoints of one model",
            )
    elif theta1.shape == theta0.shape:
        return
    elif (at := _longer(theta1, theta0)) is not None and asked.reason:
        yield Finding(
            "error", "vocabulary", f"{text}; it is not known whether its rows are tokens: {asked.reason}"
        )
    elif at is not None and asked.tokens(theta1.name) == at:
        if vocabulary == "shared_rows":
            text += ": the common rows are extrapolated, and aligned's other rows are kept"
            yield Finding("warning", "vocabulary", text)
        else:
            text += "; set vocabulary: shared_rows to extrapolate the common rows"
            yield Finding("error", "vocabulary", text)
    elif asked.converts(theta1.name):
        yield Finding("error", "layout", f"{text}: one tensor of its class in two layouts; {ONE_LAYOUT}")
    else:
        transposed = (
            "transposed by the tool that saved it" if theta1.shape == theta0.shape[::-1] else "another model"
        )
        yield Finding("error", "shapes", f"{text}: {transposed}; give two checkpoints of one architecture")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "0-d"


def _tokenizers(sft: Checkpoint, aligned: Checkpoint, parts: list[PairedTensor]) -> Iterator[Finding]:
    """Yield findings about tokenizers that differ.

    This is an error if only common rows are extrapolated, since they must mean the same tokens, or
    if more than a share of CONFLICTS of the token ids differ.
    """
    tokens = min((part.tokens for part in parts if part.tokens), default=None)
    try:
        different = different_ids(sft.folder, aligned.folder, tokens)
    except CheckpointError as error:
        raise CheckpointError(aligned.in_users(sft.in_users(str(error)))) from None
    if different is None:
        text = "the tokenizers cannot be compared (no tokenizer.json or vocab.json in one of the folders)"
        if tokens:
            yield Finding(
                "error", "tokenizer", f"{text}: rows may mean different tokens; add both tokenizers"
            )
        else:
            yield Finding("warning", "tokenizer", f"{text}: check that both models use the same one")
    elif different:
        at, ours, theirs = different[0]
        example = f"{at} is {ours!r} in sft and {theirs!r} in aligned"
        text = f"{len(different)} token ids mean different tokens: {example}"
        size = aligned.config.get("vocab_size") or max(at for at, *_ in different) + 1
        if tokens or len(different) > CONFLICTS * size:
            yield Finding("error", "tokenizer", f"{text}; give models with the same tokenizer")
        else:
            yield Finding("warning", "tokenizer", f"{text}; aligned's tokenizer is kept")
