"""What is allowed and hardly ever meant: sft and aligned exchanged, alphas in per cent.

Of a model that is known by what it says of itself: its training in this config, the base that its card, its config.json or its
adapter's config names, the name of its folder or repository, and the tags of its card.
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
PER_CENT = 2  # an alpha from which on a real pair is asked about it: the paper's are 0.1 to 0.5 but for models trained on little data
EXCHANGE = "exchange sft and aligned; if it is meant so, set the pair's unrelated: true (expoflow run: in its config)"


@dataclass(frozen=True)
class Said:
    """What a model says of itself: its name in the config, its own `place` (a hub id or an absolute folder), the words of its name and
    tags, its bases.
    """

    name: str
    place: str
    words: frozenset[str]
    bases: frozenset[str]

    def __str__(self) -> str:
        return self.place or f"'{self.name}'"

    def looks_aligned(self) -> bool:
        """Whether it was made by DPO or the like."""
        return bool(self.words & ALIGNED)

    def looks_sft(self) -> bool:
        """Whether it is an SFT model, and nothing more."""
        return SFT in self.words and not self.looks_aligned()

    def made_of(self, other: "Said") -> bool:
        """Whether it names `other` as its base."""
        return bool(other.place) and other.place.lower() in {base.lower() for base in self.bases}


def check_slips(config: Config, results: Results = RESULTS) -> list[str]:
    """What is worth asking about. Raises ConfigError for an SFT model that says that it was made of the aligned one."""
    problems, notes = [], [*_per_cent(config)]
    for name, pair in config.pairs.items():
        if pair.unrelated or _comes_from(config, pair.aligned, pair.sft):
            continue
        sft, aligned = (_said(config, model, results) for model in (pair.sft, pair.aligned))
        if _comes_from(config, pair.sft, pair.aligned) or sft.made_of(aligned):
            problems.append(f"pairs.{name}: '{pair.sft}' was made of '{pair.aligned}'; {EXCHANGE}")
        elif not aligned.made_of(sft) and (reason := _looks_exchanged(sft, aligned)):
            notes.append(f"WARNING: pairs.{name}: {reason}. If sft and aligned were exchanged, correct that")
    if problems:
        raise ConfigError(problems)
    return notes


def _looks_exchanged(sft: Said, aligned: Said) -> str:
    """Why names and tags speak against a pair; nothing if they do not."""
    if sft.looks_aligned() and not aligned.looks_aligned():
        found = ", ".join(sorted(sft.words & ALIGNED))
        return f"the model given as sft, {sft}, calls itself {found} in its name or tags, and the aligned one, {aligned}, does not"
    if aligned.looks_sft() and not sft.looks_sft():
        return f"the model given as aligned, {aligned}, calls itself {SFT} in its name or tags, and the one given as sft, {sft}, does not"
    return ""


def _per_cent(config: Config) -> Iterator[str]:
    """Large alphas of real pairs that repeat none of the paper's. A grid that begins below 1 has grown to them."""
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
    """What a folder's files name as the model that it was made of: hub ids as they are, folders in full."""
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
