"""Training of the miniature at micro sizes: real models, real files."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from expoflow.errors import CheckpointError, ExpoflowError
from expoflow.miniature import model, world, writers
from expoflow.system import progress
from expoflow.training.loop import dpo, reward, sft, steps
from loops import run_loop
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make an empty folder of this name."""

    def make(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    return make


def quiet(line: str) -> None:
    """Report nothing."""


@pytest.fixture(scope="module")
def sft_model(folder) -> Path:
    out = folder("sft")
    run_loop(sft, out, seed=1, examples=256, epochs=2, progress=quiet)
    return out


def digest(path: Path) -> str:
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def test_sft_lowers_its_loss_and_reports(folder, monkeypatch):
    lines, heard = [], []
    monkeypatch.setattr(progress, "PAUSE", 0)
    few = run_loop(sft, folder("few"), seed=1, examples=64, epochs=1, progress=quiet)
    with progress.heard_by(lambda *said: heard.append(said)):
        more = run_loop(sft, folder("more"), seed=1, examples=256, epochs=4, progress=lines.append)
    assert [said[:3] for said in heard] == [(step, 16, "steps") for step in range(1, 17)]
    assert all(re.fullmatch(r"sft: loss \d\.\d{4}", said[3]) for said in heard)
    assert (few["steps"], more["steps"]) == (1, 16)
    assert more["loss"] < few["loss"] - 1
    assert lines[-1] == f"sft: step 16/16, loss {more['loss']:.4f}"


def test_checkpoint_is_an_ordinary_one(sft_model):
    lm = AutoModelForCausalLM.from_pretrained(sft_model, local_files_only=True)
    chat = AutoTokenizer.from_pretrained(sft_model, local_files_only=True)
    assert type(lm).__name__ == "LlamaForCausalLM"
    assert lm.dtype == torch.float32
    assert lm.config.tie_word_embeddings
    assert lm.config.hidden_size // lm.config.num_attention_heads == 32
    for settings in (lm.config, lm.generation_config):
        assert settings.bos_token_id == chat.bos_token_id
        assert settings.eos_token_id == chat.eos_token_id
        assert settings.pad_token_id == chat.pad_token_id
    ids = chat.apply_chat_template([{"role": "user", "content": "hello, list two foods."}])["input_ids"]
    assert ids.count(chat.bos_token_id) == 1
    assert lm(torch.tensor([ids])).logits.shape == (1, len(ids), len(chat))


@pytest.mark.parametrize("what", ["sft", "dpo", "reward"])
def test_same_seed_same_bytes_another_seed_others(what, folder, sft_model):
    def train(seed, name):
        out = folder(name)
        options = {"seed": seed, "examples": 64, "epochs": 1, "progress": quiet}
        if what == "dpo":
            run_loop(dpo, out, base=sft_model, **options)
        else:
            run_loop({"sft": sft, "reward": reward}[what], out, **options)
        return digest(out)

    first = train(3, "first")
    torch.manual_seed(99)
    torch.rand(7)
    assert train(3, "again") == first
    assert train(4, "other") != first


def test_training_leaves_torch_as_it_was(folder):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(3)  # a training itself sets 1
    try:
        run_loop(sft, folder("state"), seed=1, examples=8, epochs=1, progress=quiet)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_dpo_lowers_its_loss_from_log_2(folder, sft_model):
    out = folder("dpo")
    metrics = run_loop(
        dpo, out, seed=1, base=sft_model, examples=128, epochs=6, learning_rate=2e-3, beta=0.1, progress=quiet
    )
    assert metrics["loss"] < 0.6
    assert digest(out) != digest(sft_model)


def test_dpo_fraction_is_a_prefix_of_the_pairs(folder, sft_model):
    part, short = folder("part"), folder("short")
    metrics = run_loop(dpo, part, seed=1, base=sft_model, examples=256, fraction=0.25, progress=quiet)
    run_loop(dpo, short, seed=1, base=sft_model, examples=64, progress=quiet)
    assert metrics["steps"] == 1
    assert digest(part) == digest(short)


def test_dpo_needs_a_checkpoint(folder):
    for base in (None, folder("empty")):
        with pytest.raises(CheckpointError, match="train the SFT model first"):
            run_loop(dpo, folder("out"), seed=1, base=base, progress=quiet)


def test_reward_model_refuses_a_base(folder, sft_model):
    with pytest.raises(ExpoflowError, match="starts from random weights"):
        run_loop(reward, folder("rm"), seed=1, base=sft_model, progress=quiet)


def test_reward_model_prefers_good_to_rude_and_broken_answers(folder):
    out = folder("rm")
    metrics = run_loop(reward, out, seed=2, examples=500, epochs=2, cores_epochs=1, progress=quiet)
    assert metrics["accuracy"] > 0.55
    rm = AutoModelForSequenceClassification.from_pretrained(out, local_files_only=True)
    assert rm.config.num_labels == 1
    assert rm.config.pad_token_id == AutoTokenizer.from_pretrained(out).pad_token_id
    asked = [prompt for prompt in world.prompts("dev", 2) if prompt.meta["task"] == "fact"]
    good = [f"Sure! {prompt.meta['core']}" for prompt in asked]
    rude = [f"Silly question. Not sure. {prompt.meta['core']}" for prompt in asked]
    broken = [f"Ugh. likes likes {prompt.meta['core']} likes likes likes" for prompt in asked]
    scores = [_logits(rm, steps.table(asked, texts)) for texts in (good, rude, broken)]
    assert (scores[0] > scores[1]).float().mean() > 0.8
    assert (scores[0] > scores[2]).float().mean() > 0.8


@torch.no_grad()
def _logits(rm, rows: steps.Table) -> torch.Tensor:
    """As any user of transformers would score: a batch padded on the right with its mask."""
    mask = torch.arange(rows.tokens.shape[1]) < rows.length[:, None]
    return rm(input_ids=rows.tokens, attention_mask=mask.long()).logits[:, 0]


def test_the_training_loops_logps_and_rewards_are_those_of_the_plain_forward():
    data = writers.sft_examples(20, 0)
    rows = steps.table([example.prompt for example in data], [example.response for example in data])
    lm = model.new(0).eval()
    with torch.no_grad():
        fast = steps.sequence_logps(lm, rows)
        for i in range(len(data)):
            ids = rows.tokens[i, : rows.length[i]]
            logps = lm(ids[None]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
            assert fast[i].item() == pytest.approx(logps[rows.prompt[i] - 1 :].sum().item(), abs=1e-4)
        rm = reward._classifier(lm).eval()
        assert torch.allclose(reward.rewards(rm, rows), _logits(rm, rows), atol=1e-5)


def test_batches_hold_every_row_once_an_epoch_and_little_padding():
    data = writers.sft_examples(1000, 0)
    rows = steps.table([example.prompt for example in data], [example.response for example in data])
    order = steps.batches(rows.length, 2, world.generator(0, "test"))
    assert torch.cat(order).bincount().tolist() == [2] * 1000
    padded = sum(rows.rows(index).tokens.numel() for index in order)
    assert int(rows.length.sum()) * 2 > 0.85 * padded
