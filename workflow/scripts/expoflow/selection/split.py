"""The two parts of `select.judge`: prompts that choose alpha, and prompts that judge the choice."""

from collections.abc import Iterable, Mapping

import pandas as pd

from expoflow.errors import DataError


def judging(prompt_ids: Iterable[str], share: float) -> set[str]:
    """The prompts that judge: the `share` of all prompts with the largest ids.

    An id is a hash of the prompt's text. The split is therefore random, but it is the same for
    every alpha, for every run and for every order of the prompts. If a prompt is added, hardly any
    other prompt changes sides.
    """
    ordered = sorted(set(prompt_ids))
    return set(ordered[len(ordered) - round(share * len(ordered)) :])


def choosing(prompt_ids: Iterable[str], share: float | None) -> set[str]:
    """The prompts that choose alpha: all but those that judge, or all if there is no `share`."""
    ids = set(prompt_ids)
    return ids if share is None else ids - judging(ids, share)


def part(
    tables: Mapping[str, pd.DataFrame], share: float | None, pair: str, *, judges: bool = False
) -> dict[str, pd.DataFrame]:
    """The rows, by alpha, of the prompts that choose alpha or, with `judges`, of those that judge.

    Without a `share` all prompts choose. Raises DataError if a part has no prompts.
    """
    if share is None:
        return dict(tables)
    parts = {}
    for alpha, table in tables.items():
        held = table["prompt_id"].isin(judging(table["prompt_id"], share))
        if held.all() or not held.any():
            raise DataError(
                f"{pair}: select.judge: {share:g} of {table['prompt_id'].nunique()} prompts leaves one part without prompts; "
                "use more prompts or another share"
            )
        parts[alpha] = table[held if judges else ~held].reset_index(drop=True)
    return parts
