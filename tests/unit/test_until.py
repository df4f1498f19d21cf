"""Trainings that stop early: the very weights that the whole training passes through."""

import pytest
import torch
from expoflow.checks import parse
from expoflow.config.sources import ModelConfig
from expoflow.errors import ConfigError
from expoflow.miniature import model, writers
from expoflow.training.loop import dpo, reward, rlhf, sft, steps
from loops import preference_pairs, run_loop
from safetensors.torch import load_file


class Passing:
    """Keeps the weights of a model in training at one of its steps, when it reports that step."""

    def __init__(self, lm, step: str):
        self.lm, self.step, self.weights, self.lines = lm, step, {}, []

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if f"step {self.step}," in line:
            self.weights = {name: tensor.clone() for name, tensor in self.lm.state_dict().items()}


def same(weights, folder) -> bool:
    stored = load_file(folder / "model.safetensors")
    return all(torch.equal(tensor, weights[name]) for name, tensor in stored.items())


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    run_loop(sft, folder, seed=1, examples=256, epochs=1, progress=lambda line: None)
    return folder


@steps.deterministic()
def test_dpo_stops_at_what_the_whole_training_passes(base, tmp_path):
    settings = {"epochs": 1, "learning_rate": 1e-3, "beta": 0.01}
    lm = model.load(base)
    whole = Passing(lm, "6/20")
    dpo.fit(lm, preference_pairs(1280, 3), 3, name="dpo", progress=whole, **settings)
    metrics = run_loop(
        dpo, tmp_path / "part", seed=3, base=base, examples=1280, until=0.3, progress=print, **settings
    )
    assert metrics["steps"] == 6
    assert same(whole.weights, tmp_path / "part")
    assert not same(lm.state_dict(), tmp_path / "part")  # which went on
    shorter = run_loop(dpo, tmp_path / "short", seed=3, base=base, examples=384, progress=print, **settings)
    assert shorter["steps"] == 6
    assert not same(whole.weights, tmp_path / "short")  # another schedule of learning rates


@steps.deterministic()
def test_sft_stops_at_what_the_whole_training_passes(base, tmp_path):
    lm = model.load(base)
    data = writers.sft_examples(640, 3)
    rows = steps.table([each.prompt for each in data], [each.response for each in data])
    whole = Passing(lm, "4/10")
    sft.fit_language(lm, rows, 3, "sft", 1, 1e-3, whole)
    run_loop(
        sft,
        tmp_path / "part",
        seed=3,
        base=base,
        examples=640,
        epochs=1,
        learning_rate=1e-3,
        until=0.4,
        progress=print,
    )
    assert same(whole.weights, tmp_path / "part")


def test_rlhf_stops_on_the_way(base, tmp_path):
    scorer = tmp_path / "rm"
    run_loop(reward, scorer, seed=1, examples=64, epochs=1, progress=lambda line: None)
    lines = {1.0: [], 0.5: []}
    for until, said in lines.items():
        metrics = run_loop(
            rlhf,
            tmp_path / str(until),
            seed=3,
            base=base,
            reward_model=scorer,
            examples=64,
            until=until,
            progress=said.append,
        )
        assert metrics["steps"] == 4 * until
    assert lines[0.5][:2] == lines[1.0][:2]  # the losses of the steps that both took
    assert "step 2/4" in lines[0.5][1]


TINY = {
    "models": {
        "sft": {"train": {"recipe": "sft", "data": "miniature"}},
        "dpo": {"train": {"recipe": "dpo", "from": "sft", "data": "miniature"}},
        "rm": {"train": {"recipe": "reward", "data": "miniature"}},
    },
    "pairs": {"tiny": {"sft": "sft", "aligned": "dpo", "alphas": [1]}},
    "prompts": {"dev": {"miniature": "dev"}},
    "reward_model": "rm",
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"until": 0}, "models.dpo.train.until: 0 is not accepted"),
        ({"until": 1.5}, "models.dpo.train.until: 1.5 is not accepted"),
        ({"until": 0.5, "trainer": "trl"}, "until needs trainer: loop"),
        ({"unti": 0.5}, "did you mean 'until'?"),
    ],
)
def test_what_until_may_be(changed, words):
    models = TINY["models"]
    train = models["dpo"]["train"] | changed
    with pytest.raises(ConfigError) as caught:
        parse(TINY | {"models": models | {"dpo": {"train": train}}})
    assert words in str(caught.value)


def test_a_whole_training_is_the_same_result_as_before():
    whole = ModelConfig(train=TINY["models"]["dpo"]["train"])
    assert "until" not in whole.result()
    part = ModelConfig(train=TINY["models"]["dpo"]["train"] | {"until": 0.25})
    assert '"until":0.25' in part.result()
