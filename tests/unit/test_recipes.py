"""Recipes of the miniature beyond SFT, DPO and the reward model: sizes, preference data, iterative DPO, RLHF."""

import hashlib
from pathlib import Path

import pytest
import torch
from expoflow import checks
from expoflow.config.sources import ModelConfig
from expoflow.engines.model import Model
from expoflow.errors import ConfigError, DataError
from expoflow.files.records import read_json
from expoflow.miniature import model, writers
from expoflow.miniature.world import prompts, truth
from expoflow.results import Manifest
from expoflow.training import onpolicy, train
from expoflow.training.loop import dpo, iterative_dpo, reward, rlhf, sft, steps
from loops import preference_pairs, run_loop


def quiet(line: str) -> None:
    """Report nothing."""


@pytest.fixture(scope="module")
def sft_model(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sft")
    run_loop(sft, out, seed=1, examples=1500, epochs=3, progress=quiet)
    return out


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("reward")
    run_loop(reward, out, seed=1, examples=600, epochs=2, cores_epochs=1, progress=quiet)
    return out


def digest(path: Path) -> str:
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def config(**models: dict) -> dict:
    both = {
        "sft": {"recipe": "sft", "data": "miniature"},
        "dpo": {"recipe": "dpo", "from": "sft", "data": "miniature"},
        "rm": {"recipe": "reward", "data": "miniature"},
    } | models
    return {
        "models": {name: {"train": recipe} for name, recipe in both.items()},
        "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [1]}},
        "prompts": {"dev": {"miniature": "dev"}},
        "reward_model": "rm",
    }


def problems(**models: dict) -> list[str]:
    with pytest.raises(ConfigError) as error:
        checks.parse(config(**models))
    return error.value.problems


def test_a_recipe_that_names_a_reward_model_says_so():
    rlhf = {"recipe": "rlhf", "from": "sft", "data": "miniature", "reward_model": "rm"}
    parsed = checks.parse(config(aligned=rlhf)).models["aligned"]
    assert (parsed.base, parsed.reward_model) == ("sft", "rm")
    assert problems(aligned=rlhf | {"reward_model": "rn"}) == [
        "models.aligned.train.reward_model: no model 'rn'; did you mean 'rm'?"
    ]
    assert problems(aligned=rlhf | {"reward_model": "dpo"}) == [
        "models.aligned.train.reward_model: 'dpo' is a language model; name one with recipe: reward"
    ]
    del rlhf["reward_model"]
    assert problems(aligned=rlhf) == ["models.aligned.train.reward_model: missing; add it"]


def test_options_of_another_recipe_are_unknown_keys():
    assert problems(sft={"recipe": "sft", "data": "miniature", "samples": 3}) == [
        "models.sft.train.samples: unknown key 'samples'; did you mean 'examples'?"
    ]
    (problem,) = problems(sft={"recipe": "sftt", "data": "miniature"})
    assert problem == "models.sft.train: must have recipe: sft, dpo, reward, iterative_dpo or rlhf"


def test_a_model_cannot_be_of_another_size_than_what_it_begins_with():
    assert problems(big={"recipe": "sft", "from": "sft", "size": "large", "data": "miniature"}) == [
        "models.big.train: size is that of the model in from; remove size"
    ]


def test_the_large_size_is_inherited(tmp_path):
    run_loop(sft, tmp_path / "large", seed=1, size="large", examples=64, epochs=1, progress=quiet)
    run_loop(dpo, tmp_path / "dpo", seed=1, base=tmp_path / "large", examples=64, progress=quiet)
    settings = model.load(tmp_path / "dpo").config
    assert (settings.hidden_size, settings.num_hidden_layers, settings.num_attention_heads) == (128, 3, 4)
    assert sum(p.numel() for p in model.load(tmp_path / "dpo").parameters()) > 5 * 116_672


def test_the_training_seed_is_not_the_worlds(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        run_loop(sft, tmp_path / name, seed=seed, world=1, examples=64, epochs=1, progress=quiet)
    assert digest(tmp_path / "one") != digest(tmp_path / "two")
    run_loop(sft, tmp_path / "same", seed=1, examples=64, epochs=1, progress=quiet)
    assert digest(tmp_path / "same") == digest(tmp_path / "one")


def test_dev_pairs_are_on_the_prompts_that_choose_alpha_each_once_first():
    dev = {prompt.prompt_id for prompt in prompts("dev", 3)}
    pairs = preference_pairs(250, 3, "dev")
    assert {pair.prompt.prompt_id for pair in pairs[:200]} == dev
    assert len({pair.prompt.prompt_id for pair in pairs[200:]}) == 50
    assert not dev & {pair.prompt.prompt_id for pair in preference_pairs(500, 3)}


def longer(pairs: list[writers.Pair]) -> float:
    """How much longer the chosen response is on average, in words."""
    return sum(len(p.chosen.split()) - len(p.rejected.split()) for p in pairs) / len(pairs)


def better(pairs: list[writers.Pair]) -> float:
    """Share of the pairs whose chosen response is truly better, among those that differ."""
    signs = [truth(p.prompt.meta, p.chosen).quality - truth(p.prompt.meta, p.rejected).quality for p in pairs]
    return sum(sign > 0 for sign in signs) / sum(sign != 0 for sign in signs)


def test_the_annotators_settings_change_labels_and_no_response():
    plain = preference_pairs(2000, 5)
    unbiased = preference_pairs(2000, 5, length_bias=0.0)
    noisy = preference_pairs(2000, 5, label_noise=0.25)
    sure = preference_pairs(2000, 5, temperature=0.05, length_bias=0.0)
    for other in (unbiased, noisy, sure):
        assert [{p.chosen, p.rejected} for p in other] == [{p.chosen, p.rejected} for p in plain]
    assert longer(plain) > longer(unbiased) + 0.1
    assert better(sure) > 0.99 > better(unbiased)
    turned = sum(
        one.chosen == other.rejected != one.rejected for one, other in zip(plain, noisy, strict=True)
    )
    assert 0.2 < turned / 2000 < 0.3


def test_on_policy_pairs_are_the_models_own_and_ordered_by_the_reward_model(
    tmp_path, sft_model, reward_model
):
    asked = prompts("train", 1)[:40]
    pairs = onpolicy.preferences(
        Model(folder=sft_model),
        Model(folder=reward_model),
        asked,
        samples=4,
        max_tokens=64,
        seed=3,
        part=tmp_path / "part.jsonl",
    )
    assert 20 < len(pairs) <= 40
    assert not (tmp_path / "part.jsonl").exists()
    assert [p.prompt for p in pairs] == [q for q in asked if q in [p.prompt for p in pairs]]
    rm = reward.LlamaForSequenceClassification.from_pretrained(reward_model).eval()
    rows = steps.table([p.prompt for p in pairs] * 2, [p.chosen for p in pairs] + [p.rejected for p in pairs])
    with torch.no_grad():
        chosen, rejected = reward.rewards(rm, rows).view(2, -1)
    assert (chosen > rejected).all()


def test_iterations_share_the_prompts():
    asked = prompts("train", 1)[:10]
    rounds = onpolicy.shares(asked, 16, 3, range(10))
    assert [len(each) for each in rounds] == [5, 6, 5]
    assert rounds[1] == [*asked[5:], asked[0]]
    with pytest.raises(DataError, match="one iteration would need more than the 10 there are"):
        onpolicy.shares(asked, 16, 1, range(10))


def test_iterative_dpo_raises_the_reward_and_is_the_same_again(tmp_path, sft_model, reward_model):
    options = {"base": sft_model, "reward_model": reward_model, "examples": 160, "iterations": 2, "epochs": 2}
    options |= {"learning_rate": 1e-3, "beta": 0.1, "seed": 1, "progress": quiet}
    metrics = run_loop(iterative_dpo, tmp_path / "one", **options)
    run_loop(iterative_dpo, tmp_path / "again", **options)
    assert digest(tmp_path / "one") == digest(tmp_path / "again")
    assert 120 < metrics["pairs"] <= 160
    assert mean_reward(tmp_path / "one", reward_model) > mean_reward(sft_model, reward_model) + 0.1


def test_rlhf_raises_the_reward_and_is_the_same_again(tmp_path, sft_model, reward_model):
    options = {"base": sft_model, "reward_model": reward_model, "examples": 320, "learning_rate": 5e-4}
    options |= {"seed": 1, "progress": quiet}
    metrics = run_loop(rlhf, tmp_path / "one", **options)
    run_loop(rlhf, tmp_path / "again", **options)
    assert digest(tmp_path / "one") == digest(tmp_path / "again")
    assert metrics["steps"] == 20
    assert metrics["kl"] > 0
    assert mean_reward(tmp_path / "one", reward_model) > mean_reward(sft_model, reward_model) + 0.1


@torch.no_grad()
def mean_reward(policy: Path, scorer: Path) -> float:
    torch.manual_seed(0)
    rm = reward.LlamaForSequenceClassification.from_pretrained(scorer).eval()
    rows, _ = rlhf.respond(model.load(policy), prompts("dev", 1))
    return reward.rewards(rm, rows).mean().item()


def test_sampled_rows_begin_with_the_prompt_and_end_where_the_response_does(sft_model):
    asked = prompts("dev", 1)[:30]
    torch.manual_seed(0)
    rows, finished = rlhf.respond(model.load(sft_model), asked)
    empty = steps.table(asked, [""] * 30)
    for at in range(30):
        start, end = rows.prompt[at], rows.length[at]
        assert rows.tokens[at, :start].tolist() == empty.tokens[at, : empty.prompt[at]].tolist()
        said = rows.tokens[at, start:end].tolist()
        assert finished[at] == (said[-1] == steps.tokenizer().eos_token_id)
        assert steps.tokenizer().eos_token_id not in said[:-1]
    assert finished.float().mean() > 0.8


def test_training_passes_what_the_recipe_says(tmp_path, sft_model, reward_model):
    source = ModelConfig.model_validate(
        {"train": {"recipe": "dpo", "from": "sft", "data": "miniature", "prompts": "dev", "examples": 70}}
    )
    base = Manifest(model="sft", source={}, folder=str(sft_model), files={}, provenance={})
    train.train("dev", source, {"base": base}, 1, tmp_path / "dev.json", progress=quiet)
    run_loop(dpo, tmp_path / "same", seed=1, base=sft_model, prompts="dev", examples=70, progress=quiet)
    assert digest(tmp_path / "dev") == digest(tmp_path / "same")
    assert read_json(tmp_path / "dev.json", Manifest).source["train"]["prompts"] == "dev"
