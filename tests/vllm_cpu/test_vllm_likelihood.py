"""Likelihoods of given responses by vLLM: those of transformers, and the alpha that they choose."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

import csv

import numpy as np
from expoflow.config.base import spell
from expoflow.engines.transformers import TransformersEngine
from expoflow.engines.vllm import VllmEngine
from expoflow.miniature.tokenizer import tokenizer
from expoflow.results import Generation
from expoflow.scoring import likelihood
from miniatures import GREEDY, PROMPTS

pytestmark = pytest.mark.vllm
ALPHAS = (0, 4, 20)


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


@pytest.fixture(scope="module")
def generations(expected):
    """The responses of every alpha, the first one empty, with the token that ended them unless they were cut off."""
    chat = tokenizer()

    def response(prompt, ids):
        ended = len(ids) < GREEDY.max_tokens
        return Generation(
            prompt_id=prompt.prompt_id,
            sample=0,
            seed=42,
            response=chat.decode(ids),
            response_tokens=len(ids),
            finish_reason="stop" if ended else "length",
            stop_token=chat.eos_token_id if ended else None,
            engine="transformers",
        )

    return {
        spell(alpha): [
            response(prompt, ids) for prompt, ids in zip(PROMPTS, [[], *expected(alpha)[1:]], strict=True)
        ]
        for alpha in ALPHAS
    }


def scored(engine, pair, generations, folder):
    """By criterion the value of every alpha, from the tables that the rule `likelihood` makes with an engine."""
    found = {"nll": [], "implicit": []}
    for alpha, responses in generations.items():
        members = {"sft": -1, "aligned": 0, "own": float(alpha)}
        models = {name: pair.streamed(at) for name, at in members.items()}
        rows = likelihood.likelihoods(models, PROMPTS, responses, engine)
        path = folder / f"{engine}.{alpha}.likelihoods.csv"
        likelihood.write_likelihoods(path, responses, rows, {"pair": "p", "alpha": alpha, "prompts": "dev"})
        with open(path, newline="") as file:
            table = list(csv.DictReader(file))
        assert table[0]["tokens"] == "1"
        tokens, sft, aligned, own = (
            np.array([float(row[name]) for row in table])
            for name in ("tokens", "logp_sft", "logp_aligned", "logp_own")
        )
        found["nll"].append(-aligned.sum() / tokens.sum())
        found["implicit"].append((2 * aligned - sft - own).mean())
    return found


def test_both_engines_choose_the_same_alpha_on_the_same_responses(pair, generations, tmp_path):
    ours = scored("transformers", pair, generations, tmp_path)
    theirs = scored("vllm", pair, generations, tmp_path)
    for by, values in ours.items():
        assert theirs[by] == pytest.approx(values, rel=1e-4, abs=1e-3)
    chosen = [[nll <= found["nll"][0] for nll in found["nll"]] for found in (ours, theirs)]
    assert chosen[0] == chosen[1]
    assert np.argmax(ours["implicit"]) == np.argmax(theirs["implicit"])
    assert min(abs(np.diff(ours["nll"]))) > 0.01
