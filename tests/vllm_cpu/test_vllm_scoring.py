"""Rewards by vLLM's pooling runner: transformers' raw logits."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

from expoflow.engines.chat import Chat
from expoflow.engines.model import Model
from expoflow.scoring.rewards import load
from miniatures import PROMPTS

pytestmark = pytest.mark.vllm
RESPONSES = ("Sure! David likes rice.", "I do not know.", "Rice. " * 30)


@pytest.fixture(scope="module")
def scorers(reward_folder):
    """(transformers', vLLM's)."""
    scorers = [load(Model(folder=reward_folder), engine) for engine in ("transformers", "vllm")]
    yield scorers
    for scorer in scorers:
        scorer.close()


@pytest.fixture(scope="module")
def rows(scorers) -> list[list[int]]:
    chat = Chat(scorers[0].tokenizer)
    return [
        chat.token_ids(prompt.messages, RESPONSES[at % len(RESPONSES)]) for at, prompt in enumerate(PROMPTS)
    ]


def logits(scorer, rows) -> list[float]:
    result = dict(each for step in scorer.logits(rows) for each in step)
    return [result[index] for index in range(len(rows))]


def test_logits_are_transformers_batched_and_one_by_one(scorers, rows):
    transformers, vllm = scorers
    batched = logits(transformers, rows)
    alone = [logits(transformers, [row])[0] for row in rows]
    assert max(batched) - min(batched) > 0.1  # raw, and not all alike
    assert alone == pytest.approx(batched, abs=1e-4)
    assert logits(vllm, rows) == pytest.approx(batched, abs=1e-4)
    assert [logits(vllm, [row])[0] for row in rows] == pytest.approx(batched, abs=1e-4)


def test_both_read_the_last_token_that_is_no_padding(scorers, rows):
    padded = [[*row, 0, 0, 0] for row in rows]
    assert scorers[0].model.config.pad_token_id == 0
    for scorer in scorers:
        assert logits(scorer, padded) == pytest.approx(logits(scorer, rows), abs=1e-4)


def test_both_have_the_same_context(scorers):
    assert scorers[0].context == scorers[1].context == 512
    row = [1] * 511 + [2]
    assert logits(scorers[1], [row]) == pytest.approx(logits(scorers[0], [row]), abs=1e-4)
