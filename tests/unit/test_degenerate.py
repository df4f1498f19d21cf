"""What is degenerate: empty, unfinished, repeating itself, in any language; and which alphas that leaves out."""

import csv
import random
import time

import numpy as np
import pytest
from expoflow.results import Scored
from expoflow.scoring.degenerate import CHARACTERS, TIMES, fault, repeats
from expoflow.scoring.responses import write_rewards
from expoflow.selection.degenerate import may_be_chosen, warnings

WORDS = "The river was low, and nobody had crossed it for a week. "
PARAGRAPH = "".join(f"Sentence {number} of a paragraph says something else. " for number in range(20))


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        ("Yes.", ""),
        (WORDS * 2 + "In the end they went home.", ""),
        ("No.\n" * 16, "repeating"),
        (WORDS + "and so on " * 30, "repeating"),
        (WORDS + "and so on " * 30 + "and s", "repeating"),  # cut off within the piece
        (WORDS + "and so on " * 30 + "\n\n \n", "repeating"),
        (PARAGRAPH * 5 + "Sentence", "repeating"),
        (PARAGRAPH * 4, ""),
        ("!" * 60, "repeating"),
        ("!" * 59, ""),
        ("Row, row, row, row, row, row, row your boat.", ""),  # a loop, but a short one
        (WORDS + "and so on " * 30 + "until the rain came.", ""),
        ("好的，我明白了。" * 20, "repeating"),
        ("河水很低，一个星期没有人渡过。" * 2 + "最后他们回家了。", ""),
        ("🙂" * 80, "repeating"),
        ("\n".join(f"{number}. the same" for number in range(1, 60)), ""),  # it counts
    ],
)
def test_what_is_degenerate(response, kind):
    assert fault(response, "stop") == kind
    assert fault(response, "length") == (kind or "unfinished")


def ends_in_a_loop(text: str) -> bool:
    """The definition, by trying every length of a piece."""
    text = text.rstrip()
    loops = ((piece, max(CHARACTERS, TIMES * piece)) for piece in range(1, len(text)))
    return any(
        loop <= len(text) and all(text[-at] == text[-at - piece] for at in range(1, loop - piece + 1))
        for piece, loop in loops
    )


def test_loops_are_found_wherever_the_definition_has_one():
    rng = random.Random(0)
    found = 0
    for _ in range(600):
        piece = "".join(rng.choices("ab ", k=rng.randint(1, 40)))
        text = (
            "".join(rng.choices("ab", k=rng.randint(0, 90)))
            + piece * rng.randint(1, 9)
            + piece[: rng.randint(0, 9)]
        )
        if rng.random() < 0.3:
            at = rng.randrange(len(text))
            text = text[:at] + "c" + text[at + 1 :]
        assert repeats(text) == ends_in_a_loop(text), text
        found += repeats(text)
    assert 100 < found < 500


@pytest.mark.parametrize(
    "text", [PARAGRAPH * 10, "a" * 9000 + "b" + "a" * 13, ("ab" * 4000 + "c") + "ab" * 29]
)
def test_looking_for_loops_is_fast(text):
    start = time.process_time()
    for _ in range(100):
        repeats(text)
    assert time.process_time() - start < 2


def test_rewards_say_of_every_response_what_is_wrong_with_it(tmp_path):
    given = [("", "stop"), ("no " * 40, "length"), ("A long sto", "length"), ("Tea.", "stop")]
    rows = [
        Scored(
            prompt_id=f"{at}",
            sample=0,
            seed=0,
            response=text,
            response_tokens=1,
            finish_reason=reason,
            engine="e",
        )
        for at, (text, reason) in enumerate(given)
    ]
    write_rewards(tmp_path / "dev.rewards.csv", rows, "p", "0", "dev")
    with open(tmp_path / "dev.rewards.csv", newline="") as file:
        assert [row["degenerate"] for row in csv.DictReader(file)] == ["empty", "repeating", "unfinished", ""]


def row(alpha, low, empty=0.0, repeating=0.0, unfinished=0.0, degenerate=None):
    known = {"empty": empty, "repeating": repeating, "unfinished": unfinished}
    known["degenerate"] = sum(known.values()) if degenerate is None else degenerate
    return {"alpha": alpha, "degenerate_change_low": low} | known


def test_an_alpha_is_left_out_if_the_rise_is_surely_larger():
    lows = [-0.2, 0.0, 0.1, 0.1001, 1.0, np.nan]
    assert may_be_chosen(lows, 0.1).tolist() == [True, True, True, False, False, True]
    assert may_be_chosen(lows, 1).all()
    assert not may_be_chosen(0.001, 0)


def test_what_is_said_of_degenerate_responses():
    aligned = row("0", 0, unfinished=0.02)
    rows = [aligned, row("1", 0.03, empty=0.08), row("9", 0.9, empty=0.97, unfinished=0.01)]
    left_out = (
        "alpha 9 left out: 98% of its responses are degenerate (empty 97%, unfinished 1%), 2% at alpha 0"
    )
    assert warnings(rows, "0", 0.1) == [left_out]
    assert warnings(rows, "1", 0.1) == [
        "look at what alpha 1 writes: 8% of its responses are degenerate (empty 8%), 2% at alpha 0",
        left_out,
    ]
    assert warnings(rows[:2], "0", 0.1) == warnings([aligned], "0", 0.1) == []
    loops = row("5", 0.4, repeating=0.4, unfinished=0.5, degenerate=0.5)
    long = row("7", 0.4, repeating=0.1, unfinished=0.5, degenerate=0.5)
    assert [
        said.endswith("raise generate.max_tokens)") for said in warnings([aligned, loops, long], "0", 0.1)
    ] == [
        False,
        True,
    ]


def test_what_is_said_if_the_aligned_models_responses_are_no_answers():
    (said,) = warnings([row("0", 0, unfinished=0.97, repeating=0.5, degenerate=0.97)], "0", 0.1)
    assert said.startswith("97% of alpha 0's responses are unfinished")
    assert "stop: [TOKEN ID] of the models" in said
    assert "generate.max_tokens" in said
    (said,) = warnings([row("0", 0, empty=0.6)], "0", 0.1)
    assert said.startswith("60% of alpha 0's responses are degenerate (empty 60%): ")
    assert warnings([row("0", 0, unfinished=0.5)], "0", 0.1) == []
