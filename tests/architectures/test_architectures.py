"""Every class of transformers comes out right, or is refused for a reason, as docs/architectures.md says; wrong is none."""

import pytest
import torch
from page import general, row, shown
from tiny import classes
from trials import ALPHA, OUTCOMES, differing, trials

# One of each kind: plain, Conv1D, states, experts, tied by the class, images and renamed modules, encoder and decoder.
QUICK = {
    "GPT2LMHeadModel",
    "Gemma2ForCausalLM",
    "Kosmos2ForConditionalGeneration",
    "LlamaForCausalLM",
    "MambaForCausalLM",
    "MixtralForCausalLM",
    "Qwen2VLForConditionalGeneration",
    "T5ForConditionalGeneration",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.long, pytest.mark.whole])
        for name in classes()
    ],
)
def test_a_class_comes_out_as_the_page_says(name, tmp_path):
    found = list(trials(name, tmp_path))
    assert [each for each in found if each.outcome == "wrong"] == []
    assert row(found) == shown().get(name), "python tests/architectures/page.py writes the page"


def test_the_page_has_every_class_and_nothing_wrong():
    page = shown()
    assert page.keys() == set(classes())
    outcomes = {outcome for each in page.values() for outcome, _ in each.values()}
    assert outcomes <= OUTCOMES.keys() - {"wrong"}


def test_one_element_that_is_off_is_seen():
    theta0 = {"weight": torch.randn(64, 8), "steps": torch.tensor([1]), "scale": torch.ones(3)}
    theta1 = theta0 | {"weight": theta0["weight"] + 0.01}
    theta2 = theta1 | {"weight": theta1["weight"] + ALPHA * (theta1["weight"] - theta0["weight"])}
    assert differing(theta0, theta1, theta2) == ""
    off = theta2["weight"].clone()
    off[5, 3] += 1e-5
    assert differing(theta0, theta1, theta2 | {"weight": off}).startswith("weight: off by 1e-05")
    assert differing(theta0, theta1, theta2 | {"steps": torch.tensor([2])}).startswith("steps")
    assert differing(theta0, theta1, theta2 | {"scale": torch.ones(3) + 1e-5}).startswith("scale")
    assert "bias" in differing(theta0, theta1, theta2 | {"bias": torch.ones(1)})


def test_a_reason_is_told_without_names():
    assert general("tensor model.layers.0.up.weight and 11 more: in sft") == "tensor NAME and N more: in sft"
