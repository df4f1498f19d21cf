"""The token of each id, read from tokenizer files without the tokenizers library."""

import filecmp
from pathlib import Path

from expoflow.checkpoints.checkpoint import read_json_file
from expoflow.errors import CheckpointError


def token_ids(folder: Path) -> dict[int, str] | None:
    """Tokens by id, from tokenizer.json, or from vocab.json and added_tokens; None if neither
    exists."""
    tokenizer = read_json_file(folder / "tokenizer.json")
    if tokenizer:
        vocab = tokenizer.get("model", {}).get("vocab", {})
        if isinstance(vocab, list):  # unigram models: [token, score] in the order of the ids
            vocab = {piece[0]: at for at, piece in enumerate(vocab)}
        added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])}
    elif (folder / "vocab.json").is_file():
        vocab, added = read_json_file(folder / "vocab.json"), read_json_file(folder / "added_tokens.json")
    else:
        return None
    return {at: token for token, at in {**vocab, **added}.items()}


def different_ids(sft: Path, aligned: Path, below: int | None = None) -> list[tuple[int, str, str]] | None:
    """Ids under `below` that have different tokens in the two tokenizers: (id, sft's, aligned's),
    sorted by id.

    None if it is not known: a tokenizer is missing, or there are only sentencepiece files, which
    differ.
    """
    if _same(sft / "tokenizer.json", aligned / "tokenizer.json"):
        return []
    try:
        ours, theirs = token_ids(sft), token_ids(aligned)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{sft} or {aligned}: tokenizer files of an unknown form ({error!r}); save the tokenizers again"
        ) from None
    if ours is None or theirs is None:
        return [] if _same(sft / "tokenizer.model", aligned / "tokenizer.model") else None
    common = ours.keys() & theirs.keys()
    return [
        (at, ours[at], theirs[at])
        for at in sorted(common)
        if ours[at] != theirs[at] and (below is None or at < below)
    ]


def _same(one: Path, other: Path) -> bool:
    """Whether both files exist with the same bytes. Comparing them is faster than parsing a large
    vocabulary."""
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)
