"""The prompts of a sweep that choose alpha, and those that judge the choice: the two parts of `select.judge`."""

from collections.abc import Iterable, Mapping

import pandas as pd

from expoflow.errors import DataError


def judging(prompt_ids: Iterable[str], share: float) -> set[str]:
    """The prompts that judge: those with the largest ids, `share` of all.

    An id is a hash of the prompt's text. What a part holds is thus chance, but the same for every alpha, in every run and
    in whichever order the prompts stand; a further prompt moves hardly any other one to the other part.
    """
    ordered = sorted(set(prompt_ids))
    return set(ordered[len(ordered) - round(share * len(ordered)) :])


def choosing(prompt_ids: Iterable[str], share: float | None) -> set[str]:
    """The prompts that choose alpha: all but those that judge; without a `share` all."""
    ids = set(prompt_ids)
    return ids if share is None else ids - judging(ids, share)


def part(
    tables: Mapping[str, pd.DataFrame], share: float | None, pair: str, *, judges: bool = False
) -> dict[str, pd.DataFrame]:
    """The rows by alpha of the prompts that choose alpha, or of those that judge; without a `share` all choose.

    Raises DataError if a part has no prompt.
    """
    if share is None:
        return dict(tables)
    parts = {}
    for alpha, table in tables.items():
        held = table["prompt_id"].isin(judging(table["prompt_id"], share))
        if held.all() or not held.any():
            raise DataError(
                f"{pair}: select.judge: {share:g} of {table['prompt_id'].nunique()} prompts leaves a part without any; "
                "give more prompts, or another share"
            )
        parts[alpha] = table[held if judges else ~held].reset_index(drop=True)
    return parts
