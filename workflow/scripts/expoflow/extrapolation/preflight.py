"""Can these two checkpoints be extrapolated? Answered from headers and configs, before any weight is read.

All findings are returned, not only the first; together with them, how each output tensor is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from expoflow.checkpoints.adapter import is_adapter, open_adapter
from expoflow.checkpoints.checkpoint import Checkpoint, open_checkpoint
from expoflow.checkpoints.findings import Finding, quantised
from expoflow.checkpoints.header import INTEGERS, Tensor
from expoflow.checkpoints.pickles import converted
from expoflow.checkpoints.tensor_names import BUFFER, WRAPPERS, wrapper
from expoflow.checkpoints.vocabulary import different_ids
from expoflow.errors import PairError
from expoflow.extrapolation.matching import Classes, Copy, Matching, configs, match
from expoflow.extrapolation.merged_adapter import merged

CONFLICTS = 0.01  # share of token ids with another meaning above which the tokenizers are different ones


@dataclass(frozen=True)
class PairedTensor:
    """How one output tensor is made: the first `shared` elements by the formula, the rest as in theta1.

    `theta0` is None (and `shared` 0) for what exists in theta1 only and is kept; `equal` marks integer
    tensors, which must have the same bytes in both.
    """

    theta1: Tensor
    theta0: Tensor | None
    shared: int
    equal: bool = False

    @property
    def rows(self) -> int | None:
        """Number of rows that both have, where one has more; None where the shapes are equal."""
        if self.theta0 is None or self.theta1.shape == self.theta0.shape or not self.shared:
            return None
        return min(self.theta1.shape[0], self.theta0.shape[0])


@dataclass(frozen=True)
class Pair:
    """Two opened checkpoints, what was found, and the parts of the output in theta1's order; `copies` as of `Matching`."""

    sft: Checkpoint
    aligned: Checkpoint
    findings: tuple[Finding, ...]
    parts: tuple[PairedTensor, ...]
    copies: tuple[Copy, ...] = ()

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


def copy_problems(pair: Pair) -> list[str]:
    """What is wrong with tied tensors that are stored beside their source; reads the bytes of both."""
    return [problem for each in pair.copies if (problem := each.problem())]


def open_both(sft: Path, aligned: Path) -> tuple[Checkpoint, Checkpoint]:
    """Open two folders, pickle-only ones converted; an adapter as aligned is opened on sft, its base.

    Raises CheckpointError for what is broken or refused, PairError for an adapter that does not fit.
    """
    if is_adapter(sft):
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
    findings += [*quantised(sft, "sft"), *quantised(aligned, "aligned")]
    asked = Classes(sft, aligned)
    findings += configs(sft, aligned, asked)
    findings += [*_wrapped(sft, "sft"), *_wrapped(aligned, "aligned")]
    matching = match(sft, aligned, asked)
    parts = tuple(
        _part(theta1, sft.tensors.get(matching.theta0.get(name, "")))
        for name, theta1 in aligned.tensors.items()
    )
    findings += [*matching.findings, *_missing(matching, asked), *_buffers(matching)]
    for part in parts:
        if part.theta0:
            findings += _compare(part.theta1, part.theta0, vocabulary, asked)
    findings += _tokenizers(sft, aligned, parts)
    return Pair(sft, aligned, tuple(findings), parts, matching.copies)


def _part(theta1: Tensor, theta0: Tensor | None) -> PairedTensor:
    if theta0 is None:
        return PairedTensor(theta1, None, 0)
    if theta1.dtype in INTEGERS or theta0.dtype in INTEGERS:
        return PairedTensor(theta1, theta0, 0, equal=True)
    alike = theta1.shape[1:] == theta0.shape[1:]
    return PairedTensor(theta1, theta0, min(theta1.elements, theta0.elements) if alike else 0)


def _missing(matching: Matching, asked: Classes) -> Iterator[Finding]:
    for role, other, unmatched in zip(
        ("sft", "aligned"), ("aligned", "sft"), matching.unmatched, strict=True
    ):
        names = [name for name in unmatched if not BUFFER.search(name)]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            hint = "tied embeddings on one side, an adapter, or another architecture; save both models alike"
            unknown = f"; its class cannot be asked: {asked.reason}" if asked.reason else ""
            text = f"tensor {names[0]}{more}: in {role}, not in {other} ({hint}{unknown})"
            yield Finding("error", "tensors", text)


def _wrapped(checkpoint: Checkpoint, role: str) -> Iterator[Finding]:
    if prefix := wrapper(checkpoint.tensors):
        text = (
            f"{role}: its tensors are named {prefix}...: {WRAPPERS[prefix]} wrapped the model that was saved"
        )
        yield Finding(
            "error", "tensors", f"{text}; save the model inside it (unwrap it, then save_pretrained)"
        )


def _buffers(matching: Matching) -> Iterator[Finding]:
    for role, fate, unmatched in zip(
        ("sft", "aligned"), ("left out", "kept"), matching.unmatched, strict=True
    ):
        names = [name for name in unmatched if BUFFER.search(name)]
        if names:
            text = f"constant buffers in {role} only are {fate}: {names[0]}"
            yield Finding("note", "buffers", text + (f" and {len(names) - 1} more" if len(names) > 1 else ""))


def _compare(theta1: Tensor, theta0: Tensor, vocabulary: str, asked: Classes) -> Iterator[Finding]:
    text = f"tensor {theta1.name} is {_shape(theta0)} in sft and {_shape(theta1)} in aligned"
    if INTEGERS & {theta1.dtype, theta0.dtype}:
        if (theta1.dtype, theta1.shape) != (theta0.dtype, theta0.shape):
            types = f"{theta0.dtype} and {theta1.dtype}"
            yield Finding(
                "error", "types", f"{text} ({types}): integer tensors must be equal; give one model's"
            )
    elif theta1.shape == theta0.shape:
        return
    elif theta1.shape[1:] == theta0.shape[1:] and asked.reason:
        yield Finding(
            "error", "vocabulary", f"{text}; whether its rows are tokens is not known: {asked.reason}"
        )
    elif theta1.shape[1:] == theta0.shape[1:] and asked.counts_tokens(theta1.name):
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
