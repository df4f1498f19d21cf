"""The licence that a model's card states, and the licence of a model made from two others."""

from collections.abc import Mapping
from pathlib import Path

from expoflow.errors import CheckpointError
from expoflow.hub.cards import front_matter

Licence = dict[str, str]  # `license`; if that is "other", also `license_name` and `license_link`
KEYS = ("license", "license_name", "license_link")


def stated(card: Path) -> Licence | None:
    """The licence in the front matter of a README.md; None if it states none, or nothing
    definite."""
    try:
        said = front_matter(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    licence = {key: said[key].strip() for key in KEYS if isinstance(said.get(key), str)}
    kind = licence.get("license", "").lower()
    if not kind or kind == "unknown" or (kind == "other" and "license_name" not in licence):
        return None
    return {**licence, "license": kind}


def inherited(parents: Mapping[str, Licence | None]) -> Licence:
    """The licence that all `parents` (by name, the aligned model first) share, with the first one's
    link.

    Raises CheckpointError if a licence is unknown or if they differ.
    """
    remedy = "read the terms of both, and state the licence of what you publish: --license ID"
    if unknown := [name for name, licence in parents.items() if licence is None]:
        raise CheckpointError(f"no licence is known for {' and '.join(unknown)}; {remedy}")
    names = {name: licence.get("license_name", licence["license"]) for name, licence in parents.items()}
    if len({(licence["license"], names[name]) for name, licence in parents.items()}) > 1:
        differ = " and ".join(f"{name} has {licence}" for name, licence in names.items())
        raise CheckpointError(f"the parents' licences differ ({differ}); {remedy}")
    return next(iter(parents.values()))
