"""The vLLM engine: transformers' tokens at every alpha, stored or streamed, in whatever order the alphas come."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

from checkpoints import save, weights
from expoflow.config.stages import GenerateConfig
from expoflow.engines import tokenizer
from expoflow.engines.model import Model
from expoflow.engines.package import package
from expoflow.engines.vllm import VllmEngine
from expoflow.errors import CheckpointError
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.streamed_checkpoint import Streamed
from miniatures import ALPHAS, GREEDY, answer
from safetensors.torch import load_file, save_file
from vllm import EngineArgs

pytestmark = pytest.mark.vllm
PAPER = GenerateConfig(max_tokens=30)


@pytest.fixture(scope="module", params=["stored", "streamed"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def at(pair, kind):
    """The model at an alpha, in the form that is under test."""
    return getattr(pair, kind)


@pytest.fixture(scope="module")
def engine(at):
    engine = VllmEngine(at(20))
    yield engine
    engine.close()


def texts(completions) -> list[str]:
    return [completion.text for completion in completions]


def test_greedy_tokens_are_transformers_there_and_back(engine, at, requests, expected, same_as_transformers):
    same_as_transformers(20, texts(answer(engine, requests)))  # as it was started
    assert expected(0) != expected(0.5) != expected(20)
    first = {}
    for alpha in (*ALPHAS, *reversed(ALPHAS)):
        engine.move(at(alpha))
        completions = answer(engine, requests)
        same_as_transformers(alpha, texts(completions))
        assert first.setdefault(alpha, completions) == completions


def test_stored_and_streamed_answer_alike(engine, pair, requests):
    for alpha in ALPHAS:
        engine.move(pair.stored(alpha))
        stored = answer(engine, requests), answer(engine, requests, PAPER)
        engine.move(pair.streamed(alpha))
        assert (answer(engine, requests), answer(engine, requests, PAPER)) == stored


def test_completions_leave_the_stop_token_out(engine, at, requests, expected):
    engine.move(at(0))
    for length in (30, 5):
        for completion, tokens in zip(
            answer(engine, requests, GREEDY.model_copy(update={"max_tokens": length})),
            expected(0),
            strict=True,
        ):
            reason = "stop" if len(tokens) < length else "length"
            assert (completion.tokens, completion.finish_reason) == (min(len(tokens), length), reason)


def test_paper_sampling_depends_on_the_seed_alone(engine, at, requests):
    engine.move(at(0.5))
    together = answer(engine, requests, PAPER)
    assert together == answer(engine, requests, PAPER)
    assert together == answer(engine, requests[::-1], PAPER)[::-1]
    assert together[:25] == [answer(engine, [request], PAPER)[0] for request in requests[:25]]
    other = [type(request)(request.token_ids, request.seed + 1) for request in requests]
    assert together != answer(engine, other, PAPER)


def test_only_what_is_not_done_is_answered(engine, requests):
    whole = answer(engine, requests, PAPER)
    done = range(0, len(requests), 3)
    rest = answer(engine, requests, PAPER, done)
    assert rest == [completion for index, completion in enumerate(whole) if index not in done]


def test_closed_midway_nothing_goes_on(engine, requests):
    whole = answer(engine, requests, PAPER)
    steps = engine.generate(requests, PAPER)
    for _ in range(4):
        next(steps)
    steps.close()
    assert not engine.engine.has_unfinished_requests()
    assert answer(engine, requests, PAPER) == whole


def test_a_model_brings_its_template_and_stop_tokens(engine, at, requests):
    engine.move(at(0))
    whole = answer(engine, requests)
    word = engine.tokenizer(whole[0].text)["input_ids"][2]
    engine.move(at(0).model_copy(update={"stop": (word,), "chat_template": "{{ messages[0].content }}"}))
    assert engine.tokenizer.chat_template == "{{ messages[0].content }}"
    first = answer(engine, requests)[0]
    assert (first.tokens, first.finish_reason) == (2, "stop")
    assert whole[0].text.startswith(first.text)
    engine.move(at(0))
    assert "<assistant>" in engine.tokenizer.chat_template
    assert answer(engine, requests) == whole


def test_stop_tokens_of_the_model_with_which_the_engine_began_do_not_stay(
    pair, requests, same_as_transformers, tmp_path
):
    """vLLM adds those of that model's generation_config.json to each request."""
    first = Model(folder=shutil.copytree(pair.aligned, tmp_path / "first"))
    settings = json.loads((first.folder / "generation_config.json").read_text())
    (first.folder / "generation_config.json").write_text(
        json.dumps(settings | {"eos_token_id": [*range(90)]})
    )
    engine = VllmEngine(first)
    try:
        assert max(each.tokens for each in answer(engine, requests[:20])) < 10
        engine.move(pair.stored(20))
        same_as_transformers(20, texts(answer(engine, requests)))
    finally:
        engine.close()


def test_what_cannot_be_loaded_leaves_the_former_model(engine, pair, at, requests, tmp_path):
    engine.move(at(20))
    before = answer(engine, requests)
    foreign = save(tmp_path / "foreign", weights())
    with pytest.raises(
        CheckpointError, match=r"architecture or config differs from that of .*; start another engine"
    ):
        engine.move(Model(folder=foreign))
    with pytest.raises(CheckpointError, match=r"model.embed_tokens.weight is 320x32 in sft and 154x64"):
        engine.move(Model(folder=pair.aligned, streamed=Streamed(sft=foreign, aligned=pair.aligned, alpha=1)))
    # Too large a number in the middle of the file, when the other half of its layer has new weights.
    late = Options(alpha_for=((r"layers\.1\.mlp\.up_proj", 1e45),))
    with pytest.raises(CheckpointError, match=r"model.layers.1.mlp.up_proj.weight.*overflow"):
        engine.move(pair.streamed(0, late))
    assert answer(engine, requests) == before
    engine.move(at(0))
    engine.move(at(20))
    assert answer(engine, requests) == before


def test_alphas_by_tensor_name(engine, pair, requests):
    options = Options(alpha_for=(("self_attn", 0.0), ("layers.0.self_attn", -1.0)))
    engine.move(pair.stored(20))
    without = answer(engine, requests)
    engine.move(pair.stored(20, options, "by-name"))
    stored = answer(engine, requests)
    engine.move(pair.streamed(20, options))
    assert answer(engine, requests) == stored != without


def test_logits_that_are_nan_name_the_prompt(pair, requests, tmp_path):
    """vLLM itself answers from NaN with any token."""
    shutil.copytree(pair.aligned, tmp_path / "nan")
    file = tmp_path / "nan/model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    engine = VllmEngine(Model(folder=tmp_path / "nan"))
    named = [dataclasses.replace(each, prompt_id=f"p{at}") for at, each in enumerate(requests)]
    words = rf"model '{tmp_path / 'nan'}': the logits for a token of the response to prompt p\d+ are NaN"
    with pytest.raises(CheckpointError, match=words):
        answer(engine, named)
    found = dict(each for step in engine.logps([(requests[0].token_ids, [5, 6])]) for each in step)
    assert math.isnan(found[0])
    engine.close()


def test_what_is_compiled_at_one_alpha_is_found_at_all_others(pair, requests, store):
    """vLLM finds it by a hash over its settings, the model's path among them; the pair's files lie at several."""
    models = (pair.streamed(0.5), pair.streamed(20), pair.stored(20), pair.stored(0))
    hashes, paths, answers = set(), set(), []
    for model in models:
        engine = VllmEngine(model)
        hashes.add(engine.engine.vllm_config.compute_hash())
        paths.add(engine.engine.model_config.model)
        engine.move(pair.streamed(0.5))
        answers.append(answer(engine, requests[:20]))
        engine.close()
    assert len(hashes) == len(paths) == 1
    assert Path(*paths).is_relative_to(store)
    assert answers[1:] == answers[:-1]
    by_path = [EngineArgs(model=str(model.folder), skip_tokenizer_init=True) for model in models[:2]]
    assert len({each.create_engine_config().compute_hash() for each in by_path}) == 2  # why it matters


def test_the_model_is_given_itself_if_vllm_asks_its_files(pair, tmp_path, monkeypatch):
    model = pair.stored(0)
    config = tokenizer.config(model)
    assert package(model, config) == package(pair.streamed(20), config) != model.folder
    assert {path.name for path in package(model, config).iterdir()} == {"config.json"}
    config.dtype = None
    assert package(model, config) == model.folder
    assert package(pair.streamed(20), config) != model.folder  # which has no weights to be asked
    copy = Model(folder=shutil.copytree(model.folder, tmp_path / "copy"))
    tensors = load_file(copy.folder / "model.safetensors")
    save_file(
        {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()},
        copy.folder / "model.safetensors",
        {"format": "pt"},
    )
    assert tokenizer.config(copy).tie_word_embeddings
    assert package(copy, tokenizer.config(copy)) == copy.folder
    (tmp_path / "file").touch()
    monkeypatch.setenv("EXPOFLOW_STORE", str(tmp_path / "file"))  # a place that cannot be written to
    assert package(model, tokenizer.config(model)) == model.folder
