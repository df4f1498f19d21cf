"""Likelihoods of given responses by vLLM: those of transformers."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

from expoflow.engines.transformers import TransformersEngine
from expoflow.engines.vllm import VllmEngine

pytestmark = pytest.mark.vllm


def test_both_engines_find_a_response_as_likely(pair, requests, expected):
    rows = [
        (request.token_ids, tokens or [5]) for request, tokens in zip(requests, expected(20), strict=True)
    ]
    rows[0] = (rows[0][0], rows[0][1] * 40)  # a long one, which fills the context nearly
    rows[0] = (rows[0][0], rows[0][1][: 511 - len(rows[0][0])])
    found = {}
    for Engine in (TransformersEngine, VllmEngine):  # noqa: N806
        engine = Engine(pair.streamed(0))
        for alpha in (0, 0.5, -1):
            engine.move(pair.streamed(alpha))
            logps = dict(each for scored in engine.logps(rows) for each in scored)
            found[engine.name, alpha] = [logps[index] for index in range(len(rows))]
        engine.close()
    for alpha in (0, 0.5, -1):
        assert found["vllm", alpha] == pytest.approx(found["transformers", alpha], abs=2e-3, rel=1e-5)
    assert found["vllm", 0] != pytest.approx(found["vllm", -1], abs=1e-2)
