"""Can these two checkpoints be extrapolated? Answered from headers and configs, before any weight is read.

All findings are returned, not only the first; together with them, how each output tensor is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from expoflow.checkpoints.adapter import is_adapter, open_adapter, require_alone
from expoflow.checkpoints.architecture import differences
from expoflow.checkpoints.checkpoint import Checkpoint, open_checkpoint
from expoflow.checkpoints.findings import Finding, is_ungathered, not_whole, quantised
from expoflow.checkpoints.header import INTEGERS, Tensor
from expoflow.checkpoints.pickles import converted
from expoflow.checkpoints.tensor_names import EMBEDDING, HEAD, QUANTISED, WRAPPERS, constant, wrapper
from expoflow.checkpoints.vocabulary import different_ids
from expoflow.errors import PairError
from expoflow.extrapolation.merged_adapter import merged

CONFLICTS = 0.01  # share of token ids with another meaning above which the tokenizers are different ones


@dataclass(frozen=True)
class PairedTensor:
    """How one output tensor is made: the first `shared` elements by the formula, the rest as in theta1.

    `theta0` is None (and `shared` 0) for what is kept as it is in theta1: what it alone has, and constants; `equal` marks
    other integer tensors, which must have the same bytes in both. If `whole` is set, `theta1` is the piece of that output
    tensor which begins at its element `first`.
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
    def rows(self) -> int | None:
        """Number of rows that both have, where one has more; None where the shapes are equal."""
        if self.theta0 is None or self.theta1.shape == self.theta0.shape or not self.shared:
            return None
        return min(self.theta1.shape[0], self.theta0.shape[0])


@dataclass(frozen=True)
class Pair:
    """Two opened checkpoints, what was found, and the parts of the output in theta1's order."""

    sft: Checkpoint
    aligned: Checkpoint
    findings: tuple[Finding, ...]
    parts: tuple[PairedTensor, ...]

    @property
    def errors(self) -> list[str]:
        """Messages of the findings that forbid the extrapolation."""
        return [finding.message for finding in self.findings if finding.level == "error"]

    def require(self) -> None:
        """Raise a PairError with all errors, one line each."""
        if self.errors:
            raise PairError("\n".join(self.errors))


def open_pair(sft: Path, aligned: Path, vocabulary: str = "error") -> Pair:
    """Open two folders and compare them; raises for those that cannot be opened."""
    return preflight(*open_both(sft, aligned), vocabulary)


def open_both(sft: Path, aligned: Path) -> tuple[Checkpoint, Checkpoint]:
    """Open two folders, pickle-only ones converted; an adapter as aligned is opened on sft, its base.

    Raises CheckpointError for what is broken or refused, PairError for an adapter that does not fit.
    """
    if is_adapter(sft):
        require_alone(sft)
        raise PairError(f"sft {sft} is an adapter; give a whole model: merge it (peft: merge_and_unload)")
    theta0 = open_checkpoint(converted(sft))
    if not is_adapter(aligned):
        return theta0, open_checkpoint(converted(aligned))
    adapter = open_adapter(aligned)
    if refused := list(quantised(theta0, "sft (the adapter's base)")):
        raise PairError("\n".join(finding.message for finding in refused))
    return theta0, merged(theta0, adapter)


def preflight(sft: Checkpoint, aligned: Checkpoint, vocabulary: str = "error") -> Pair:
    """Compare two opened checkpoints; `vocabulary` is "error" or "shared_rows". Reads no weight."""
    findings = [Finding("note", "files", note) for each in (sft, aligned) for note in each.notes]
    for checkpoint, role in ((sft, "sft"), (aligned, "aligned")):
        findings += [*quantised(checkpoint, role), *not_whole(checkpoint, role)]
    findings += [Finding(level, "config", text) for level, text in differences(sft.config, aligned.config)]
    findings += [*_wrapped(sft, "sft"), *_wrapped(aligned, "aligned")]
    parts = tuple(_match(sft, aligned))
    findings += [*_missing(sft, aligned), *_buffers(sft, aligned)]
    for part in parts:
        if part.theta0:
            findings += _compare(part.theta1, part.theta0, vocabulary)
    return Pair(sft, aligned, (*findings, *_tokenizers(sft, aligned, parts)), parts)


def _tied(checkpoint: Checkpoint) -> bool:
    return checkpoint.config.get("tie_word_embeddings") is True


def _match(sft: Checkpoint, aligned: Checkpoint) -> Iterator[PairedTensor]:
    """theta1's tensors with theta0's of the same name; a head stored in spite of its tie, with its source."""
    source = next((tensor for name, tensor in sft.tensors.items() if EMBEDDING.search(name)), None)
    for theta1 in aligned.tensors.values():
        theta0 = sft.tensors.get(theta1.name)
        if theta0 is None and _tied(sft) and _tied(aligned) and HEAD.search(theta1.name):
            theta0 = source
        if theta0 is None or constant(theta1) or constant(theta0):
            yield PairedTensor(theta1, None, 0)
        elif theta1.dtype in INTEGERS or theta0.dtype in INTEGERS:
            yield PairedTensor(theta1, theta0, 0, equal=True)
        elif theta1.shape[1:] == theta0.shape[1:]:
            yield PairedTensor(theta1, theta0, min(theta1.elements, theta0.elements))
        else:
            yield PairedTensor(theta1, theta0, 0)


def _missing(sft: Checkpoint, aligned: Checkpoint) -> Iterator[Finding]:
    tied = _tied(sft) and _tied(aligned)
    for have, lack, role, other in ((sft, aligned, "sft", "aligned"), (aligned, sft, "aligned", "sft")):
        names = [
            name
            for name in have.tensors
            if name not in lack.tensors
            and not constant(have.tensors[name])
            and not QUANTISED.search(name)  # said of the model that has them
            and not (tied and HEAD.search(name))
        ]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            hint = "tied embeddings on one side, an adapter, or another architecture; save both models alike"
            yield Finding("error", "tensors", f"tensor {names[0]}{more}: in {role}, not in {other} ({hint})")


def _wrapped(checkpoint: Checkpoint, role: str) -> Iterator[Finding]:
    if prefix := wrapper(checkpoint.tensors):
        text = (
            f"{role}: its tensors are named {prefix}...: {WRAPPERS[prefix]} wrapped the model that was saved"
        )
        yield Finding(
            "error", "tensors", f"{text}; save the model inside it (unwrap it, then save_pretrained)"
        )


def _buffers(sft: Checkpoint, aligned: Checkpoint) -> Iterator[Finding]:
    ours, theirs = (
        {name for name, tensor in each.tensors.items() if constant(tensor)} for each in (sft, aligned)
    )
    for names, text in (
        (
            ours & aligned.tensors.keys() | theirs & sft.tensors.keys(),
            "are not extrapolated, aligned's are kept",
        ),
        (ours - aligned.tensors.keys(), "in sft only are left out"),
        (theirs - sft.tensors.keys(), "in aligned only are kept"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield Finding("note", "buffers", f"constant buffers {text}: {min(names)}{more}")


def _compare(theta1: Tensor, theta0: Tensor, vocabulary: str) -> Iterator[Finding]:
    if any(is_ungathered(each.name, each.shape) for each in (theta1, theta0)):
        return  # said of the model that has it
    text = f"tensor {theta1.name} is {_shape(theta0)} in sft and {_shape(theta1)} in aligned"
    if INTEGERS & {theta1.dtype, theta0.dtype}:
        if (theta1.dtype, theta1.shape) != (theta0.dtype, theta0.shape):
            types = f"{theta0.dtype} and {theta1.dtype}"
            yield Finding(
                "error", "types", f"{text} ({types}): integer tensors must be equal; give one model's"
            )
    elif theta1.shape == theta0.shape:
        return
    elif theta1.shape[1:] == theta0.shape[1:] and (EMBEDDING.search(theta1.name) or HEAD.search(theta1.name)):
        if vocabulary == "shared_rows":
            text += ": the common rows are extrapolated, aligned's others kept"
            yield Finding("warning", "vocabulary", text)
        else:
            text += "; set vocabulary: shared_rows to extrapolate the common rows"
            yield Finding("error", "vocabulary", text)
    else:
        transposed = (
            "transposed by the tool that saved it" if theta1.shape == theta0.shape[::-1] else "another model"
        )
        yield Finding("error", "shapes", f"{text}: {transposed}; give two checkpoints of one architecture")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "0-d"


def _tokenizers(sft: Checkpoint, aligned: Checkpoint, parts: tuple[PairedTensor, ...]) -> Iterator[Finding]:
    """Rows are shared only where they mean the same tokens; elsewhere a tokenizer that differs is said."""
    rows = min((part.rows for part in parts if part.rows), default=None)
    different = different_ids(sft.folder, aligned.folder, rows)
    if different is None:
        text = "the tokenizers cannot be compared (no tokenizer.json or vocab.json in one of the folders)"
        if rows:
            yield Finding(
                "error", "tokenizer", f"{text}: rows may mean different tokens; add both tokenizers"
            )
        else:
            yield Finding("warning", "tokenizer", f"{text}: check that the two models use one")
    elif different:
        at, ours, theirs = different[0]
        example = f"{at} is {ours!r} in sft and {theirs!r} in aligned"
        text = f"{len(different)} token ids mean another token: {example}"
        size = aligned.config.get("vocab_size") or max(at for at, *_ in different) + 1
        if rows or len(different) > CONFLICTS * size:
            yield Finding("error", "tokenizer", f"{text}; give models of one tokenizer")
        else:
            yield Finding("warning", "tokenizer", f"{text}; aligned's tokenizer is kept")
