"""Rewards do not depend on the batch, and models that are no reward models are refused."""

import json
import math

import pytest
import transformers
from expoflow.config.stages import ScoreConfig
from expoflow.engines.model import Model
from expoflow.errors import CheckpointError
from expoflow.miniature.world import prompts, truth
from expoflow.results import Generation
from expoflow.scoring import rewards
from expoflow.scoring.responses import evaluate
from expoflow.training.loop import reward
from loops import run_loop
from transformers import AutoModelForSequenceClassification, AutoTokenizer

PROMPTS = prompts("dev", 0)[:8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("reward")
    run_loop(
        reward, path, seed=0, examples=200, epochs=1, cores=50, cores_epochs=1, progress=lambda line: None
    )
    return path


def responses() -> list[Generation]:
    texts = [prompt.messages[0].content * (1 + index % 4) for index, prompt in enumerate(PROMPTS)]
    return [
        Generation(
            prompt_id=p.prompt_id,
            sample=0,
            seed=0,
            response=t,
            response_tokens=1,
            finish_reason="stop",
            engine="transformers",
        )
        for p, t in zip(PROMPTS, texts, strict=True)
    ]


def score(folder, rows=None) -> list[float]:
    return rewards.score_responses(Model(folder=folder), PROMPTS, rows or responses(), ScoreConfig())


def test_batched_equals_one_by_one_equals_plain_transformers(folder, monkeypatch):
    batched = score(folder)
    assert batched == pytest.approx([score(folder, [row])[0] for row in responses()], abs=1e-5)
    monkeypatch.setitem(rewards.BATCH_TOKENS, "cpu", 60)
    assert batched == pytest.approx(score(folder), abs=1e-5)
    tokenizer, plain = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSequenceClassification.from_pretrained(folder),
    )
    for prompt, row, value in zip(PROMPTS, responses(), batched, strict=True):
        messages = [
            {"role": "user", "content": prompt.messages[0].content},
            {"role": "assistant", "content": row.response},
        ]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        assert plain(**ids).logits.item() == pytest.approx(value, abs=1e-5)


def test_a_conversation_beyond_the_context_is_cut_and_told(folder, tmp_path, capsys):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"max_position_embeddings": 10}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert score(tmp_path) != score(folder)
    assert "8 of 8 conversations cut to the reward model's 10 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("id2label", {"0": "a", "1": "b"}, "has 2 logits"), ("pad_token_id", None, "has pad_token_id None")],
)
def test_what_is_no_reward_model_is_refused(folder, tmp_path, key, value, message):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {key: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        rewards.load(Model(folder=tmp_path))


def test_scored_rows_carry_the_truth(folder):
    scored = evaluate(PROMPTS, responses(), Model(folder=folder), ScoreConfig())
    for prompt, row in zip(PROMPTS, scored, strict=True):
        assert (row.quality, row.correct) == (
            (known := truth(prompt.meta, row.response, True)).quality,
            known.correct,
        )
    bare = [prompt.model_copy(update={"meta": None}) for prompt in PROMPTS]
    assert all(
        row.quality is None for row in evaluate(bare, responses(), Model(folder=folder), ScoreConfig())
    )


def test_an_empty_response_has_a_reward_and_bfloat16_is_another_one(folder):
    empty = responses()[0].model_copy(update={"response": "", "response_tokens": 0})
    (value,) = score(folder, [empty])
    assert math.isfinite(value)
    half = rewards.score_responses(Model(folder=folder), PROMPTS, responses(), ScoreConfig(dtype="bfloat16"))
    assert half != score(folder)
    assert half == pytest.approx(score(folder), abs=0.1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_does_not_matter(folder, tmp_path, side):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"padding_side": side}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert score(tmp_path) == score(folder)


def test_padding_on_the_right_needs_no_mask(folder, monkeypatch):
    scorer = rewards.load(Model(folder=folder))
    assert not scorer.masks
    chat = AutoTokenizer.from_pretrained(folder)
    rows = [chat(each.response)["input_ids"] for each in responses()]
    seen, forward = [], scorer.model.forward

    def shown(**given):
        seen.append("attention_mask" in given)
        return forward(**given)

    monkeypatch.setattr(scorer.model, "forward", shown)
    without = dict(each for step in scorer.logits(rows) for each in step)
    scorer.masks = True
    assert dict(each for step in scorer.logits(rows) for each in step) == pytest.approx(without, abs=1e-6)
    assert seen == [False] * (len(seen) // 2) + [True] * (len(seen) // 2)


GEMMA = {"head_dim": 16, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("kind", "more", "masks"),
    [
        ("Mistral", {"num_key_value_heads": 2, "sliding_window": 8}, False),
        ("Gemma3Text", GEMMA, False),
        ("Gemma3Text", GEMMA | {"use_bidirectional_attention": True}, True),
        ("Bert", {}, True),
    ],
)
def test_a_token_that_sees_what_comes_after_it_needs_one(kind, more, masks):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=0,
        **more,
    )
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    assert rewards._reads_no_padding(model) == (not masks)
