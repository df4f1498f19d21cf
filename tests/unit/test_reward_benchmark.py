"""The reward benchmark by hand."""

import pytest
from expoflow.benchmarks.reward import compare, measure
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.results import Message, Prompt, Scored

PROMPTS = [
    Prompt(prompt_id=name, messages=[Message(role="user", content=name)], meta={"task": task})
    for name, task in (("a", "fact"), ("b", "fact"), ("c", "list"))
]


def scored(rewards: list[float], correct: list[bool]) -> list[Scored]:
    return [
        Scored(prompt_id="abc"[i // 2], sample=i % 2, seed=0, response="", response_tokens=i, finish_reason="length" if i else "stop", engine="transformers", reward=r, quality=2 * r, correct=c)
        for i, (r, c) in enumerate(zip(rewards, correct, strict=True))
    ]  # fmt: skip


ALIGNED = scored([0, 1, 1, 1, 2, 2], [True, False, False, False, True, True])
EXPO = scored([1, 2, 1, 0, 3, 3], [True, True, True, False, True, False])


def test_means_are_over_prompts_of_their_samples():
    metrics = {m.metric: (m.value, m.n) for m in measure(PROMPTS, ALIGNED)}
    assert metrics["reward"] == (pytest.approx((0.5 + 1 + 2) / 3), 3)
    assert metrics["quality"] == (pytest.approx(2 * 3.5 / 3), 3)
    assert metrics["unfinished"] == (pytest.approx(5 / 6), 3)
    assert metrics["accuracy"] == (pytest.approx(0.5), 3)
    assert metrics["accuracy_fact"] == (pytest.approx(0.25), 2)
    assert metrics["accuracy_list"] == (1, 1)


def test_the_comparison_is_paired():
    metrics = {m.metric: m for m in compare(PROMPTS, EXPO, ALIGNED, SelectConfig(resamples=500))}
    assert metrics["reward"].value == pytest.approx((1 - 0.5 + 1) / 3)
    assert metrics["reward"].low <= metrics["reward"].value <= metrics["reward"].high
    assert metrics["win_rate"].value == pytest.approx((1 + 1 + 0.5 + 0 + 1 + 1) / 6)
    assert metrics["accuracy_list"].value == pytest.approx(-0.5)


@pytest.mark.parametrize("aligned", [ALIGNED[::-1], ALIGNED[:-2], []])
def test_responses_to_other_prompts_cannot_be_compared(aligned):
    with pytest.raises(DataError, match="answered different prompts; delete both results"):
        compare(PROMPTS, EXPO if aligned else [], aligned, SelectConfig(resamples=500))


def test_without_truth_there_are_no_truth_metrics():
    bare = [row.model_copy(update={"quality": None, "correct": None}) for row in ALIGNED]
    assert {m.metric for m in measure(PROMPTS, bare)} == {"reward", "length", "unfinished"}


def test_a_skipped_prompt_counts_nowhere():
    aligned, expo = ([row for row in rows if row.prompt_id != "b"] for rows in (ALIGNED, EXPO))
    metrics = {m.metric: (m.value, m.n) for m in measure(PROMPTS, aligned)}
    assert metrics["reward"] == (pytest.approx((0.5 + 2) / 2), 2)
    assert metrics["accuracy_fact"] == (0.5, 1)
    compared = {m.metric: m for m in compare(PROMPTS, expo, aligned, SelectConfig(resamples=500))}
    assert (compared["reward"].value, compared["reward"].n) == (pytest.approx((1 + 1) / 2), 2)
