"""The transformers engine on a tiny trained model, and its sampling against transformers' own."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from expoflow.config.stages import GenerateConfig
from expoflow.engines import generate, memory
from expoflow.engines import transformers as engine_module
from expoflow.engines.chat import Chat
from expoflow.engines.generate import request_seed
from expoflow.engines.model import Completion, Model, Request
from expoflow.engines.transformers import TransformersEngine, sample
from expoflow.errors import CheckpointError, DataError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.hosts import waiting
from expoflow.miniature.world import prompts
from expoflow.results import Message, Prompt
from expoflow.system import progress
from expoflow.training.loop import sft
from loops import run_loop
from test_waiting import Run, wait
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
    run_loop(sft, path, seed=0, examples=600, epochs=2, progress=lambda line: None)
    return path


@pytest.fixture(scope="module")
def engine(folder) -> TransformersEngine:
    return TransformersEngine(Model(folder=folder))


def answers(engine, asked, config, done=()) -> list[Completion]:
    """All completions, in the order of the requests that are not done."""
    finished = dict(row for step in engine.generate(asked, config, done) for row in step)
    return [finished[index] for index in sorted(finished)]


def requests(engine, prompts=PROMPTS) -> list[Request]:
    return [
        Request(Chat(engine.tokenizer).token_ids(prompt.messages), request_seed(42, 0, prompt.prompt_id))
        for prompt in prompts
    ]


def test_greedy_equals_transformers_generate(engine, folder):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for request, completion in zip(requests(engine), answers(engine, requests(engine), GREEDY), strict=True):
        ids = torch.tensor([request.token_ids])
        whole = model.generate(ids, do_sample=False, max_new_tokens=20)[0, ids.shape[1] :].tolist()
        stopped = whole[-1] in engine.stop
        tokens = whole[:-1] if stopped else whole
        assert completion.text == engine.tokenizer.decode(tokens, skip_special_tokens=True)
        assert (completion.tokens, completion.finish_reason) == (len(tokens), "stop" if stopped else "length")
        assert completion.stop_token == (whole[-1] if stopped else None)


@pytest.fixture(params=[1, 2])
def threads(request):
    """As many of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_response_does_not_depend_on_the_batch(engine, monkeypatch):
    together = answers(engine, requests(engine), PAPER)
    alone = [answers(engine, [request], PAPER)[0] for request in requests(engine)]
    backwards = answers(engine, requests(engine)[::-1], PAPER)[::-1]
    monkeypatch.setattr(engine_module, "BATCH_TOKENS", 100)
    assert together == alone == backwards == answers(engine, requests(engine), PAPER)


def test_what_is_done_is_left_out_and_changes_nothing(engine):
    together = answers(engine, requests(engine), PAPER)
    assert answers(engine, requests(engine), PAPER, done={0, 3, 7}) == [
        each for index, each in enumerate(together) if index not in {0, 3, 7}
    ]
    assert answers(engine, requests(engine), PAPER, done=set(range(len(PROMPTS)))) == []


def test_responses_come_as_they_end_and_may_be_given_up(engine):
    steps = list(engine.generate(requests(engine), PAPER))
    assert len([step for step in steps if step]) > 1
    assert len(steps) <= PAPER.max_tokens
    under_way = engine.generate(requests(engine), PAPER)
    next(under_way)
    under_way.close()
    assert list(engine.generate(requests(engine), PAPER)) == steps


def test_a_response_ends_where_the_context_does(folder):
    engine = TransformersEngine(Model(folder=folder))
    asked = requests(engine)
    engine.context = max(len(request.token_ids) for request in asked) + 3
    for request, completion in zip(asked, answers(engine, asked, PAPER), strict=True):
        assert completion.tokens <= engine.context - len(request.token_ids)


def test_the_seed_counts_and_differs_by_prompt_and_sample(engine):
    first = answers(engine, requests(engine), PAPER)
    other = [dataclasses.replace(request, seed=request.seed + 1) for request in requests(engine)]
    assert answers(engine, other, PAPER) != first
    seeds = {request_seed(42, sample, prompt.prompt_id) for prompt in PROMPTS for sample in range(3)}
    assert len(seeds) == 36


def generated(folder, tmp_path, prompts=PROMPTS, config=PAPER, **model):
    return generate.generate(Model(folder=folder, **model), prompts, config, tmp_path / "part", "key")


def test_responses_are_in_the_order_of_prompts_then_samples(folder, tmp_path):
    rows = generated(folder, tmp_path, PROMPTS[:3], GenerateConfig(max_tokens=3, samples=2))
    assert [(row.prompt_id, row.sample) for row in rows] == [
        (p.prompt_id, s) for p in PROMPTS[:3] for s in range(2)
    ]
    assert {row.engine for row in rows} == {"transformers"}


def test_a_job_that_was_cut_off_goes_on_and_ends_with_the_same_responses(folder, tmp_path, monkeypatch):
    whole = generated(folder, tmp_path)
    lines = (tmp_path / "part").read_bytes().splitlines(keepends=True)
    told = []
    (tmp_path / "part").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    kept = {json.loads(line)["prompt_id"] for line in lines[1:5]}
    heard = []
    monkeypatch.setattr(progress, "PAUSE", 0)
    with progress.heard_by(lambda *said: heard.append(said)):
        rest = generate.generate(Model(folder=folder), PROMPTS, PAPER, tmp_path / "part", "key", told.append)
    assert rest == whole
    assert heard[0] == (4, 12, "responses", "", 0)
    new = sum(row.response_tokens for row in rest if row.prompt_id not in kept)
    assert heard[-1] == (12, 12, "responses", "", new)
    assert told == ["4 responses are there already, from a run that was cut off"]
    assert sorted((tmp_path / "part").read_bytes().splitlines(keepends=True)) == sorted(lines)
    generate.generate(Model(folder=folder), PROMPTS[:1], PAPER, tmp_path / "part", "another", told.append)
    assert len(told) == 1  # what was made of something else does not count


KILLED = """
import sys
from pathlib import Path
from expoflow.config.stages import GenerateConfig
from expoflow.engines import transformers
from expoflow.engines.generate import generate
from expoflow.engines.model import Model
from expoflow.miniature.world import prompts
transformers.BATCH_TOKENS = 100
generate(
    Model(folder=sys.argv[1]), prompts("dev", 0)[:80], GenerateConfig(max_tokens=20), Path(sys.argv[2]), "key"
)
"""


def test_a_job_that_is_killed_loses_no_response(folder, tmp_path, monkeypatch):
    part = tmp_path / "part"
    job = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(part)])
    while not part.exists() or part.read_bytes().count(b"\n") < 20:
        assert job.poll() is None
        time.sleep(0.01)
    job.kill()
    job.wait()
    monkeypatch.setattr(engine_module, "BATCH_TOKENS", 100)
    told, asked = [], prompts("dev", 0)[:80]
    resumed = generate.generate(Model(folder=folder), asked, PAPER, part, "key", told.append)
    assert 19 <= int(told[0].split()[0]) < 80
    assert resumed == generated(folder, tmp_path / "whole", asked)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("other")
    run_loop(sft, path, seed=1, examples=600, epochs=2, progress=lambda line: None)
    return path


def test_streamed_is_stored_and_an_engine_moves_there_and_back(folder, other, tmp_path):
    stored = {alpha: tmp_path / alpha for alpha in ("0.5", "-0.5")}
    extrapolate(folder, other, stored)
    models = [Model(folder=path) for path in stored.values()]
    models += [
        Model(folder=other, streamed=Streamed(sft=folder, aligned=other, alpha=alpha))
        for alpha in (0.5, -0.5, 0, -1)
    ]
    fresh = [answers(engine, requests(engine), PAPER) for engine in map(TransformersEngine, models)]
    assert fresh[0] == fresh[2] != fresh[1] == fresh[3]
    moving = TransformersEngine(models[0])
    places = {parameter.data_ptr() for parameter in moving.model.parameters()}
    for index in (2, 1, 5, 0, 3, 4, 0):
        moving.move(models[index])
        assert answers(moving, requests(moving), PAPER) == fresh[index]
    assert {parameter.data_ptr() for parameter in moving.model.parameters()} == places  # in place


def test_an_engine_does_not_move_to_another_architecture(engine, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"intermediate_size": ', '"intermediate_size": 1'))
    with pytest.raises(CheckpointError, match="its architecture or config differs from that of"):
        engine.move(Model(folder=tmp_path))


def test_the_config_may_set_template_and_stop_tokens(folder):
    plain = TransformersEngine(Model(folder=folder))
    template = plain.tokenizer.chat_template + "{# mine #}"
    engine = TransformersEngine(Model(folder=folder, chat_template=template, stop=(5, 9)))
    assert engine.tokenizer.chat_template == template
    assert engine.stop == plain.stop | {5, 9}


def test_shares_on_several_gpus_make_the_same_responses(folder, tmp_path, monkeypatch, capsys):
    """Two hosts on GPUs that there are not go on with what a killed job left; what is too long is said once."""
    config = PAPER.model_copy(update={"too_long": "skip"})
    asked = [*PROMPTS, *long_prompts()[1:2]]
    whole = generated(folder, tmp_path / "whole", asked, config)
    lines = (tmp_path / "whole/part").read_bytes().splitlines(keepends=True)
    (tmp_path / "part").write_bytes(b"".join(lines[:5]))
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(waiting, "PATIENCE", 0)
    monkeypatch.setattr(generate, "LEAST", 4)
    monkeypatch.setattr(progress, "PAUSE", 0)
    run, heard = Run(monkeypatch, 2), []
    try:
        with progress.heard_by(lambda *said: heard.append(said[:3])):
            assert generated(folder, tmp_path, asked, config) == whole
    finally:
        run.process.kill()
        wait(lambda: not run.head.folder.exists())
    assert sorted((tmp_path / "part").read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert len([*Path("results/logs/hosts").iterdir()]) == 2
    assert capsys.readouterr().out.count("too long") == 1
    assert (heard[0], heard[-1]) == ((4, 13, "responses"), (12, 13, "responses"))


def long_prompts() -> list[Prompt]:
    long = PROMPTS[0].model_copy(
        update={"prompt_id": "f" * 16, "messages": [Message(role="user", content="who is anna ? " * 400)]}
    )
    return [PROMPTS[0], long, PROMPTS[1]]


def test_a_prompt_beyond_the_context_is_named_skipped_or_truncated(folder, tmp_path, capsys):
    with pytest.raises(DataError, match=r"prompt f{16} has \d+ tokens, the model's context is \d+; remove"):
        generated(folder, tmp_path, long_prompts())
    skipped = generated(folder, tmp_path, long_prompts(), GenerateConfig(max_tokens=4, too_long="skip"))
    assert [row.prompt_id for row in skipped] == [PROMPTS[0].prompt_id, PROMPTS[1].prompt_id]
    with pytest.raises(DataError, match="none of 1 prompts leaves room"):
        generated(folder, tmp_path / "none", long_prompts()[1:2], GenerateConfig(too_long="skip"))
    (tmp_path / "part").unlink()
    cut = generated(folder, tmp_path, long_prompts(), GenerateConfig(max_tokens=4, too_long="truncate"))
    assert len(cut) == 3
    assert "1 prompts too long for the context truncated: ffffffffffffffff" in capsys.readouterr().out


def test_a_model_that_cannot_fit_into_memory_is_refused_before_it_is_loaded(folder, tmp_path):
    import json
    import struct

    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    elements = 1 << 40  # sparse: no byte of it is on disk
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}}
    ).encode()
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * elements)
    with pytest.raises(
        CheckpointError, match=r"its weights need 4398.0 GB, this machine has .* GB free; take"
    ):
        memory.require_memory(Model(folder=tmp_path))


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
            ids = Chat(tokenizer).token_ids(PROMPTS[0].messages)
            assert ids.count(bos) <= 1
            assert ids[0] == bos or "bos_token" not in text
        tokenizer.chat_template = None
        with pytest.raises(CheckpointError, match="has no chat template"):
            Chat(tokenizer).token_ids(PROMPTS[0].messages)
    finally:
        tokenizer.chat_template = template


def test_a_model_whose_folder_is_gone_gives_way_to_another(folder, tmp_path):
    """Rounds of a training on its own responses are removed when it ends; a host has the last one still loaded."""
    gone = tmp_path / "round"
    shutil.copytree(folder, gone)
    engine = TransformersEngine(Model(folder=gone))
    shutil.rmtree(gone)
    engine.move(Model(folder=folder))
    assert answers(engine, requests(engine), GREEDY)
