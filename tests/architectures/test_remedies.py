"""What the page's refusals tell a user to do makes the pair right."""

import shutil

import peft
import pytest
import torch
import transformers
from torch import nn
from trials import STEP, as_saved, compared, first, loaded, module_names, quiet

LAYOUTS = ["HrmTextForCausalLM", "InklingForConditionalGeneration"]  # by Chunk and by Interleave


@pytest.mark.parametrize("name", LAYOUTS)
def test_two_layouts_saved_again_in_one(name, tmp_path):
    with quiet():
        model, theta0 = first(name, tmp_path / "sft")
        theta1 = as_saved(model, tmp_path, theta0)
        shutil.rmtree(tmp_path / "aligned")
        module_names(model, tmp_path, theta0)
    outcome, reason = compared(name, tmp_path, theta0, theta1)
    assert outcome == "refused"
    assert "save them again (save_pretrained with save_original_format=False)" in reason
    with quiet():
        for role in ("sft", "aligned"):
            again = getattr(transformers, name).from_pretrained(tmp_path / role, dtype=torch.float32)
            shutil.rmtree(tmp_path / role)
            again.save_pretrained(tmp_path / role, save_original_format=False)
    assert compared(name, tmp_path, theta0, theta1) == ("right", "")


def test_an_adapter_of_a_module_that_is_stored_otherwise_is_merged(tmp_path):
    name = "HrmTextForCausalLM"
    with quiet():
        model, theta0 = first(name, tmp_path / "sft")
        layer = next(each for each, module in model.named_modules() if isinstance(module, nn.Linear))
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=[layer]))
        for each, parameter in adapted.named_parameters():
            if "lora_" in each:
                parameter.data = STEP**0.5 * torch.randn_like(parameter)
        adapted.save_pretrained(tmp_path / "aligned")
    outcome, reason = compared(name, tmp_path, theta0, theta0)
    assert outcome == "refused"
    assert reason.endswith("merge it with peft (merge_and_unload, save_pretrained) and give the merged model")
    shutil.rmtree(tmp_path / "aligned")
    with quiet():
        adapted.merge_and_unload().save_pretrained(tmp_path / "aligned")
        theta1 = loaded(name, tmp_path / "aligned")
    assert not torch.equal(theta0[f"{layer}.weight"], theta1[f"{layer}.weight"])
    assert compared(name, tmp_path, theta0, theta1) == ("right", "")
