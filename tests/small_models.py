"""Tiny models of transformers' own classes, saved by it, and what it loads of a checkpoint that was made of two."""

import json
from pathlib import Path

import torch
import transformers
from checkpoints import write_tokenizer
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.tensor_stream import tensors
from safetensors.torch import load_file, save_file

TOKENS = 64
STATE_SPACE = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
LAYERS = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
# By model_type; all but the first three tie their head if config.json does not say that they do not.
SMALL = {
    "llama": LAYERS,
    "mistral": LAYERS,
    "mixtral": {**LAYERS, "num_local_experts": 2},
    "gemma2": {**LAYERS, "head_dim": 8},
    "gpt2": GPT,
    "openai-gpt": GPT,
    "ctrl": {**GPT, "dff": 32},
    "mamba": STATE_SPACE,
    "opt": {**LAYERS, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 32},
    "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
}


def model_of(kind: str, tokens: int = TOKENS, **settings: object) -> transformers.PreTrainedModel:
    """A model with the weights of its seed, 0."""
    torch.manual_seed(0)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    config = transformers.AutoConfig.for_model(
        kind, **SMALL.get(kind, LAYERS) | settings, vocab_size=tokens, **ids
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def save(model: transformers.PreTrainedModel, folder: Path) -> Path:
    """As transformers saves it, with a tokenizer."""
    model.save_pretrained(folder)
    write_tokenizer(folder, [f"word{at}" for at in range(model.config.get_text_config().vocab_size)])
    return folder


def trained(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """The same model after a small step."""
    for parameter in model.parameters():
        parameter.data += 1e-3 * torch.randn_like(parameter)
    return model


def save_pair(kind: str, folder: Path, **settings: object) -> tuple[Path, Path]:
    """(sft, aligned) of one model."""
    model = model_of(kind, **settings)
    return save(model, folder / "sft"), save(trained(model), folder / "aligned")


def change_config(folder: Path, **changes: object) -> Path:
    """With other values; None takes a key away."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def change_tensors(folder: Path, change) -> Path:
    """With what `change` makes of the tensors, by name, of its one file."""
    path = folder / "model.safetensors"
    state = change(load_file(path))
    save_file({name: each.clone().contiguous() for name, each in state.items()}, path, {"format": "pt"})
    return folder


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """What plain transformers loads, every tensor of the class; nothing may be missing."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    auto = getattr(transformers, architecture, transformers.AutoModelForCausalLM)
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    return model.state_dict()


def require_right(sft: Path, aligned: Path, out: Path, alpha: float = 0.5, **options: object) -> None:
    """What transformers loads of the result is theta1 + alpha * (theta1 - theta0) in float64; the stream has its bits."""
    made = Options(dtype="float32", **options)
    extrapolate(sft, aligned, {str(alpha): out}, made)
    theta0, theta1, theta2 = loaded(sft), loaded(aligned), loaded(out)
    assert theta1.keys() == theta2.keys()
    for name, one in theta1.items():
        zero, expected = theta0[name].double(), one.double().clone()
        both = tuple(slice(min(sizes)) for sizes in zip(one.shape, zero.shape, strict=True))
        expected[both] += alpha * (one.double()[both] - zero[both])
        torch.testing.assert_close(theta2[name].double(), expected, rtol=1e-6, atol=1e-9)
    stored = load_file(out / "model.safetensors")
    streamed = dict(tensors(sft, aligned, alpha, made))
    assert stored.keys() == streamed.keys()
    assert all(torch.equal(stored[name], streamed[name]) for name in stored)


VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {**VISION, "num_key_value_heads": 1, "vocab_size": 128}


def image_text_model(kind: str) -> transformers.PreTrainedModel:
    """A tiny vision-language model; its modules have other names than its tensors on the hub."""
    torch.manual_seed(0)
    if kind == "qwen2_vl":
        shape = {
            "depth": 1,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
        }
        rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
        ids = {
            "image_token_id": 120,
            "video_token_id": 121,
            "vision_start_token_id": 122,
            "vision_end_token_id": 123,
        }
        text = {**TEXT, "rope_parameters": rope, "bos_token_id": 0, "eos_token_id": 1}
        config = transformers.Qwen2VLConfig(text_config=text, vision_config=shape, **ids)
        return transformers.Qwen2VLForConditionalGeneration(config)
    vision = {**VISION, "image_size": 28, "patch_size": 14}
    if kind == "gemma3":
        text = {**TEXT, "head_dim": 16, "pad_token_id": 0}
        config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
        return transformers.Gemma3ForConditionalGeneration(config)
    text = transformers.LlamaConfig(**TEXT)
    vision = transformers.CLIPVisionConfig(**vision, projection_dim=32)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=127)
    return transformers.LlavaForConditionalGeneration(config)
