"""Likelihoods of given responses, against one plain forward pass each."""

import csv

import pytest
import torch
from expoflow.engines import transformers as engine_module
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model
from expoflow.engines.transformers import TransformersEngine
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.miniature import model as miniature
from expoflow.miniature.world import prompts
from expoflow.results import Generation
from expoflow.scoring import likelihood
from transformers import AutoModelForCausalLM

PROMPTS = prompts("dev", 0)[:3]
END, OTHER = 2, 7  # the miniature's eos, and a stop token that a user may have added
# Texts, what ended them, and the token that counts for it.
RESPONSES = [
    ("Ann likes tea.", "stop", END, [END]),
    ("Sure! The opposite of hot is cold.", "length", None, []),
    ("", "stop", END, [END]),
    ("tea", "stop", OTHER, [OTHER]),
    ("", "length", None, []),
    ("no no no no no no", "stop", None, [END]),  # of an older file, which does not say it
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, seed in (("sft", 0), ("aligned", 1)):
        miniature.save(miniature.new(seed), root / name)
    return root


@pytest.fixture(scope="module")
def generations():
    asked = [(prompt.prompt_id, sample) for prompt in PROMPTS for sample in range(2)]
    fixed = {"seed": 0, "response_tokens": 1, "engine": "transformers"}
    return [
        Generation(
            prompt_id=one, sample=two, response=text, finish_reason=reason, stop_token=stop_token, **fixed
        )
        for (one, two), (text, reason, stop_token, _) in zip(asked, RESPONSES, strict=True)
    ]


def expected(folder, generations):
    """(tokens, log-probability) of every response with what ended it, by itself, in float64."""
    tokenizer = TransformersEngine(Model(folder=folder)).tokenizer
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    asked = {prompt.prompt_id: Chat(tokenizer).token_ids(prompt.messages) for prompt in PROMPTS}
    for each, (text, *_, end) in zip(generations, RESPONSES, strict=True):
        prompt = asked[each.prompt_id]
        response = tokenizer(text, add_special_tokens=False)["input_ids"] + end
        total = 0.0
        for at, token in enumerate(response):
            logits = model(torch.tensor([prompt + response[:at]])).logits[0, -1]
            total += logits.log_softmax(-1)[token].item()
        yield len(response), total


@pytest.mark.parametrize("budget", [1, 4096])
def test_logps_are_those_of_one_token_after_the_other(folders, generations, budget, monkeypatch):
    monkeypatch.setattr(engine_module, "SCORED_TOKENS", budget)
    models = {name: Model(folder=folders / name) for name in ("sft", "aligned")}
    rows = likelihood.likelihoods(models, PROMPTS, generations, "transformers")
    for name in models:
        for row, (tokens, logp) in zip(rows, expected(folders / name, generations), strict=True):
            assert row["tokens"] == tokens
            assert row[f"logp_{name}"] == pytest.approx(logp, abs=1e-4)
    assert (rows[2]["tokens"], rows[4]["tokens"]) == (1, 0)
    assert rows[2]["logp_aligned"] < -1
    assert rows[4] == {"tokens": 0, "logp_sft": 0.0, "logp_aligned": 0.0}


def test_streamed_alphas_0_and_minus_1_are_the_parents(folders, generations):
    streamed = {
        name: Model(
            folder=folders / "aligned",
            streamed=Streamed(sft=folders / "sft", aligned=folders / "aligned", alpha=alpha),
        )
        for name, alpha in (("sft", -1), ("aligned", 0))
    }
    stored = {name: Model(folder=folders / name) for name in streamed}
    assert likelihood.likelihoods(streamed, PROMPTS, generations, "auto") == likelihood.likelihoods(
        stored, PROMPTS, generations, "auto"
    )


def test_a_response_longer_than_the_context_is_cut(folders, generations):
    aligned = Model(folder=folders / "aligned")
    tokenizer = TransformersEngine(aligned).tokenizer
    room = 512 - 1 - len(Chat(tokenizer).token_ids(PROMPTS[0].messages))
    for words, tokens in ((2000, room), (room, room), (room - 1, room), (room - 2, room - 1)):
        long = [generations[0].model_copy(update={"response": "tea " * words})]
        (row,) = likelihood.likelihoods({"aligned": aligned}, PROMPTS, long, "transformers")
        assert row["tokens"] == tokens


def test_the_table(tmp_path, generations):
    rows = [{"tokens": 1, "logp_aligned": 0.0 - at} for at in range(len(generations))]
    likelihood.write_likelihoods(
        tmp_path / "l.csv", generations, rows, {"pair": "p", "alpha": "0.3", "prompts": "dev"}
    )
    with open(tmp_path / "l.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["logp_aligned"] for row in read] == ["0", "-1", "-2", "-3", "-4", "-5"]
    assert {row["logp_own"] for row in read} == {""}
    assert (read[3]["prompt_id"], read[3]["sample"]) == (generations[3].prompt_id, "1")
