"""What real folders carry comes out right, or is refused; preflight says the same."""

import pytest
from folders import FOLDERS, made
from trials import compared

REFUSED = {
    "adapter beside another whole model in shards": "has adapter_config.json and model.safetensors.index.json",
    "`_orig_mod.` before the names of aligned": "torch.compile wrapped the model",
    "a value head in aligned": "the value head of TRL's PPO",
    "a layer for several tokens in aligned only (DeepSeek-V3)": "model.layers.2.eh_proj.weight and 26 more",
    "no elements in aligned (ZeRO-3)": "DeepSpeed ZeRO-3 saved the model without gathering",
    "no elements in both": "DeepSpeed ZeRO-3 saved the model without gathering",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_right_or_refused_for_its_reason(name, tmp_path):
    outcome, reason = compared(FOLDERS[name][0], tmp_path, *made(name, tmp_path))
    if name in REFUSED:
        assert outcome == "refused"
        assert REFUSED[name] in reason
    else:
        assert (outcome, reason) == ("right", "")
