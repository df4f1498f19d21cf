"""Warn about likely slips that are allowed but hardly ever intended: sft and aligned exchanged,
alphas in per cent.

The evidence is what a model says about itself: its training in this config, the base that its card,
its config.json or its adapter's config names, the name of its folder or repository, and the tags of
its card.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expoflow.config import Config
from expoflow.config.base import REFERENCE_ALPHAS
from expoflow.dag.resources import Needs
from expoflow.errors import ConfigError, DataError
from expoflow.files.records import read_json
from expoflow.hub.cards import CARD, front_matter
from expoflow.paths import RESULTS, Results
from expoflow.results import Manifest

ALIGNED = {"dpo", "ppo", "rlhf", "kto", "orpo", "simpo", "rloo", "grpo", "ipo", "cpo", "aligned"}
SFT = "sft"
PER_CENT = 2  # alphas of a real pair from here on are questioned: the paper's are 0.1 to 0.5, except for models trained on little data
EXCHANGE = "exchange sft and aligned; if this is intended, set the pair's unrelated: true (expoflow run: in its config)"


@dataclass(frozen=True)
class Said:
    """What a model says about itself.

    It has its name in the config, its `place` (a hub id or an absolute folder), the words of its
    name and tags, and its bases.
    """

    name: str
    place: str
    words: frozenset[str]
    bases: frozenset[str]

    def __str__(self) -> str:
        return self.place or f"'{self.name}'"

    def looks_aligned(self) -> bool:
        """Whether the model was trained by DPO or a similar method."""
        return bool(self.words & ALIGNED)

    def looks_sft(self) -> bool:
        """Whether the model is only an SFT model."""
        return SFT in self.words and not self.looks_aligned()

    def made_of(self, other: "Said") -> bool:
        """Whether the model names `other` as its base."""
        return bool(other.place) and other.place.lower() in {base.lower() for base in self.bases}


def check_slips(config: Config, results: Results = RESULTS) -> list[str]:
    """Warnings about likely slips. Raises ConfigError if an SFT model says that it was made from
    the aligned model."""
    problems, notes = [], [*_per_cent(config)]
    for name, pair in config.pairs.items():
        if pair.unrelated or _comes_from(config, pair.aligned, pair.sft):
            continue
        sft, aligned = (_said(config, model, results) for model in (pair.sft, pair.aligned))
        if _comes_from(config, pair.sft, pair.aligned) or sft.made_of(aligned):
            problems.append(f"pairs.{name}: '{pair.sft}' was made from '{pair.aligned}'; {EXCHANGE}")
        elif not aligned.made_of(sft) and (reason := _looks_exchanged(sft, aligned)):
            notes.append(f"WARNING: pairs.{name}: {reason}. If sft and aligned were exchanged, correct that")
    if problems:
        raise ConfigError(problems)
    return notes


def _looks_exchanged(sft: Said, aligned: Said) -> str:
    """Why names and tags suggest that a pair is exchanged; empty if they do not."""
    if sft.looks_aligned() and not aligned.looks_aligned():
        found = ", ".join(sorted(sft.words & ALIGNED))
        return f"the model given as sft, {sft}, calls itself {found} in its name or tags, and the aligned one, {aligned}, does not"
    if aligned.looks_sft() and not sft.looks_sft():
        return f"the model given as aligned, {aligned}, calls itself {SFT} in its name or tags, and the one given as sft, {sft}, does not"
    return ""


def _per_cent(config: Config) -> Iterator[str]:
    """Warnings about large alphas of real pairs that repeat no model of the paper.

    A grid that starts below 1 was probably extended to them, so it is not reported.
    """
    needs = Needs(config, lambda name: 0)
    for name, pair in config.pairs.items():
        tried = [alpha for alpha in pair.grid() if alpha not in REFERENCE_ALPHAS]
        large = [alpha for alpha in tried if float(alpha) >= PER_CENT]
        if (
            large
            and float(min(tried, key=float)) >= 1
            and not pair.paper
            and not needs.miniature(pair.aligned)
        ):
            yield (
                f"WARNING: pairs.{name}.alphas: {', '.join(large)}: alpha {large[-1]} goes {large[-1]} times as far as the alignment did. If"
                f" per cent are meant, write {float(large[-1]) / 100:g} for {large[-1]}; the paper's are 0.1 to 0.5, and larger ones only"
                " for models that were trained on little data"
            )


def _comes_from(config: Config, model: str, other: str) -> bool:
    """Whether this config trains `model` from `other`."""
    name = config.models[model].base
    while name and name != other:
        name = config.models[name].base
    return name == other


def _said(config: Config, model: str, results: Results) -> Said:
    source, folder = config.models[model], None
    if source.path:
        folder = Path(source.path)
    elif not source.train:
        with suppress(DataError):
            folder = Path(read_json(results.manifest(model), Manifest).folder)
    place = source.hub or (os.path.realpath(source.path) if source.path else "")
    named = (source.hub or "").rpartition("/")[2] or (folder.resolve().name if folder else model)
    card: dict[str, Any] = {}
    if folder:
        with suppress(OSError, UnicodeDecodeError):
            card = front_matter((folder / CARD).read_text(encoding="utf-8"))
    tags = card.get("tags")
    texts = [named, *(map(str, tags) if isinstance(tags, list) else ())]
    words = frozenset(word for text in texts for word in re.split(r"[^a-z0-9]+", text.lower()))
    return Said(model, place, words, frozenset(_bases(folder, card)) if folder else frozenset())


def _bases(folder: Path, card: dict[str, Any]) -> Iterator[str]:
    """The models that a folder's files name as its base: hub ids as written, folders also as full
    paths."""
    named = card.get("base_model")
    found = named if isinstance(named, list) else [named]
    for name, key in (("config.json", "_name_or_path"), ("adapter_config.json", "base_model_name_or_path")):
        with suppress(OSError, ValueError, AttributeError):
            found.append(json.loads((folder / name).read_text(encoding="utf-8")).get(key))
    for each in found:
        if isinstance(each, str) and each:
            yield each
            if Path(each).is_dir():
                yield os.path.realpath(each)
