"""Adapters made by peft on tiny checkpoints, and what peft makes of them: the independent reference."""

from pathlib import Path

import torch
from checkpoints import save, weights
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM


def save_base(folder: Path, dtype: torch.dtype = torch.bfloat16, **settings) -> Path:
    shape = {name: settings[name] for name in ("vocab", "tied", "hidden") if name in settings}
    return save(folder, weights(dtype=dtype, **shape), dtype=str(dtype)[6:], **settings)


def load_base(base: Path, dtype: torch.dtype | None = None) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype or "auto")


def train(base: Path, folder: Path, size: float = 1e-2, **settings) -> Path:
    """Save an adapter whose parameters are far from where they began, as training leaves them."""
    torch.manual_seed(0)
    model = get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    random = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn(parameter.shape, generator=random).to(parameter.dtype)
    model.save_pretrained(folder)
    return folder


def with_adapter(base: Path, adapter: Path, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """The base with the adapter beside its weights, as peft serves it."""
    return PeftModel.from_pretrained(load_base(base, dtype), adapter)


def merged(base: Path, adapter: Path, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """peft's own merge of the two, computed in `dtype`."""
    return with_adapter(base, adapter, dtype).merge_and_unload().state_dict()
