"""Alphas that may not be chosen because their responses became degenerate, and the warnings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from expoflow.engines import unfinished

KINDS = ("empty", "repeating", "unfinished")
CHANGE = "degenerate_change"
Row = Mapping[str, Any]


def shares(table: pd.DataFrame) -> dict[str, float]:
    """The share of an alpha's responses that are degenerate, and the share of each kind.

    An unfinished response may also be of another kind.
    """
    return {
        "empty": float((table["degenerate"] == "empty").mean()),
        "repeating": float((table["degenerate"] == "repeating").mean()),
        "unfinished": float((table["finish_reason"] == "length").mean()),
        "degenerate": float(table["degenerate"].notna().mean()),
    }


def may_be_chosen(change_low: Any, rise: float) -> Any:
    """Whether an alpha may be chosen, by its change in the share of degenerate responses.

    It may be, unless the share has surely risen by more than `rise` from alpha 0. `change_low` is
    the low end of the interval of the change, or an array of these ends for several alphas.
    """
    return np.logical_not(np.asarray(change_low, dtype=float) > rise)


def doubtful(aligned: Row) -> bool:
    """Whether most responses of alpha 0 are degenerate: a comparison with them then says little."""
    return aligned["degenerate"] > unfinished.MOSTLY


def warnings(rows: Sequence[Row], chosen: str, rise: float) -> list[str]:
    """Warnings about the responses in `rows` of alphas.csv with an alpha >= 0, alpha 0 first."""
    aligned = rows[0]
    said = []
    for row in rows[1:]:
        if not may_be_chosen(row[f"{CHANGE}_low"], rise):
            said.append(f"alpha {row['alpha']} left out: {_compared(row, aligned)}")
        elif row["alpha"] == chosen and row[f"{CHANGE}_low"] > 0:
            said.append(f"look at what alpha {chosen} writes: {_compared(row, aligned)}")
    if aligned["unfinished"] > unfinished.MOSTLY:
        said.append(unfinished.words(aligned["unfinished"]))
    elif doubtful(aligned):
        said.append(
            f"{_share(aligned, 'degenerate')} of alpha 0's responses are degenerate ({_kinds(aligned)}): look at them, and "
            "at the chat template that the aligned model was trained with (chat_template: of the models)"
        )
    return said


def _compared(row: Row, aligned: Row) -> str:
    only_long = row["degenerate"] - row["empty"] - row["repeating"] > row["degenerate"] / 2
    remedy = " (if these are good answers that are only long, raise generate.max_tokens)" if only_long else ""
    return (
        f"{_share(row, 'degenerate')} of its responses are degenerate ({_kinds(row)}), "
        f"{_share(aligned, 'degenerate')} at alpha 0{remedy}"
    )


def _kinds(row: Row) -> str:
    return ", ".join(f"{kind} {_share(row, kind)}" for kind in KINDS if row[kind])


def _share(row: Row, kind: str) -> str:
    return f"{100 * row[kind]:.3g}%"
