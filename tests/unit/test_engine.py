"""The transformers engine on a tiny trained model, and its sampling against transformers' own."""

import dataclasses
from pathlib import Path

import pytest
import torch
from expoflow import chat, engines
from expoflow.config import GenerateConfig
from expoflow.engines import Request, request_seed
from expoflow.engines import transformers as engine_module
from expoflow.engines.transformers import TransformersEngine, sample
from expoflow.errors import CheckpointError
from expoflow.miniature import sft
from expoflow.miniature.world import prompts
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

GREEDY = GenerateConfig(temperature=0, presence_penalty=0, frequency_penalty=0, max_tokens=20)
PAPER = GenerateConfig(max_tokens=20)
PROMPTS = prompts("dev", 0)[:12]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sft")
    sft.train(path, seed=0, examples=600, epochs=2, progress=lambda line: None)
    return path


@pytest.fixture(scope="module")
def engine(folder) -> TransformersEngine:
    return TransformersEngine(folder)


def requests(engine, prompts=PROMPTS) -> list[Request]:
    return [
        Request(chat.token_ids(engine.tokenizer, prompt.messages), request_seed(42, 0, prompt.prompt_id))
        for prompt in prompts
    ]


def test_greedy_equals_transformers_generate(engine, folder):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for request, completion in zip(requests(engine), engine.generate(requests(engine), GREEDY), strict=True):
        ids = torch.tensor([request.token_ids])
        whole = model.generate(ids, do_sample=False, max_new_tokens=20)[0, ids.shape[1] :].tolist()
        stopped = whole[-1] in engine.stop
        tokens = whole[:-1] if stopped else whole
        assert completion.text == engine.tokenizer.decode(tokens, skip_special_tokens=True)
        assert (completion.tokens, completion.finish_reason) == (len(tokens), "stop" if stopped else "length")


def test_a_response_does_not_depend_on_the_batch(engine, monkeypatch):
    together = engine.generate(requests(engine), PAPER)
    alone = [engine.generate([request], PAPER)[0] for request in requests(engine)]
    backwards = engine.generate(requests(engine)[::-1], PAPER)[::-1]
    monkeypatch.setattr(engine_module, "BATCH_TOKENS", 100)
    assert together == alone == backwards == engine.generate(requests(engine), PAPER)


def test_the_seed_counts_and_differs_by_prompt_and_sample(engine):
    first = engine.generate(requests(engine), PAPER)
    other = [dataclasses.replace(request, seed=request.seed + 1) for request in requests(engine)]
    assert engine.generate(other, PAPER) != first
    seeds = {request_seed(42, sample, prompt.prompt_id) for prompt in PROMPTS for sample in range(3)}
    assert len(seeds) == 36


def test_responses_are_in_the_order_of_prompts_then_samples(engine):
    rows = engines.respond(engine, PROMPTS[:3], GenerateConfig(max_tokens=3, samples=2))
    assert [(row.prompt_id, row.sample) for row in rows] == [
        (p.prompt_id, s) for p in PROMPTS[:3] for s in range(2)
    ]


def test_weights_given_as_tensors_are_the_folders(engine, folder, tmp_path):
    from safetensors.torch import load_file

    bare = tmp_path / "bare"
    bare.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (bare / path.name).write_bytes(path.read_bytes())
    streamed = TransformersEngine(bare, iter(load_file(folder / "model.safetensors").items()))
    assert streamed.generate(requests(engine), PAPER) == engine.generate(requests(engine), PAPER)
    assert streamed.stop == engine.stop


def test_the_draw_has_the_distribution_of_transformers_warpers():
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(1)) * 2
    config = GenerateConfig(presence_penalty=0, frequency_penalty=0, top_k=12, top_p=0.8, temperature=0.7)
    warpers = [TemperatureLogitsWarper(0.7), TopKLogitsWarper(12), TopPLogitsWarper(0.8)]
    expected = LogitsProcessorList(warpers)(None, logits).softmax(dim=-1)[0]
    uniforms = (torch.arange(20_000) + 0.5) / 20_000
    drawn = sample(logits.expand(20_000, -1), torch.zeros(20_000, 40), uniforms, config)
    shares = torch.bincount(drawn, minlength=40) / 20_000
    torch.testing.assert_close(shares, expected, atol=2e-4, rtol=0)


def test_rounding_never_leaves_the_nucleus():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    config = GenerateConfig(presence_penalty=0, frequency_penalty=0, top_k=0, top_p=0.5, temperature=1)
    token = sample(logits, torch.zeros(1, 4), torch.tensor([1.0]), config)
    assert token.tolist() == [0]


def test_penalties_count_generated_tokens():
    logits = torch.tensor([[1.0, 0.9, 0.0]])
    config = GenerateConfig(temperature=0, presence_penalty=0.05, frequency_penalty=0.03)
    for count, expected in ((0, 0), (1, 0), (2, 1)):  # 1.0 - 0.05 - 0.03 * count against 0.9
        counts = torch.tensor([[float(count), 0, 0]])
        assert sample(logits, counts, torch.zeros(1), config).tolist() == [expected]


def test_exactly_one_bos_whoever_writes_it(engine):
    tokenizer = engine.tokenizer
    template = tokenizer.chat_template
    bos = tokenizer.bos_token_id
    try:
        for text in (
            template,
            "{{ bos_token }}" + template,
            template.replace("{{ bos_token }}", "").replace("{{- bos_token }}", ""),
        ):
            tokenizer.chat_template = text
            ids = chat.token_ids(tokenizer, PROMPTS[0].messages)
            assert ids.count(bos) <= 1
            assert ids[0] == bos or "bos_token" not in text
        tokenizer.chat_template = None
        with pytest.raises(CheckpointError, match="has no chat template"):
            chat.token_ids(tokenizer, PROMPTS[0].messages)
    finally:
        tokenizer.chat_template = template
