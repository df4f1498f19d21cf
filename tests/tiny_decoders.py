"""Tiny models of architectures that are no plain decoders: recurrent and hybrid ones, and vision-language models with their
processors. Their weights are random and large, so that what they say depends on what they are given.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from expoflow.miniature.tokenizer import CHAT_TEMPLATE, tokenizer
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

# As llava-hf's: a content is a list of parts.
LISTS = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
# As Qwen2-VL's: a content is a text or a list of parts.
BOTH = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
SIDE, PATCH = 16, 8  # pixels of an image as LLaVA gets it, and of a patch
TEXT = {
    "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}  # fmt: skip
EYES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
MAMBA2 = {
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}


def _text(kind: str, **more: Any) -> Callable[[Any], Any]:
    """A config of a class for text."""

    def make(words: Any) -> Any:
        ids = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return transformers.AutoConfig.for_model(kind, vocab_size=len(words), **ids, **more)

    return make


def _llava(words: Any) -> Any:
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**EYES, image_size=SIDE, patch_size=PATCH),
        text_config=_text("llama", **TEXT)(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )


def _qwen2_vl(words: Any) -> Any:
    tokens = {"image": "<|image_pad|>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(token) for name, token in tokens.items()}
    return transformers.Qwen2VLConfig(
        text_config=_text("qwen2_vl_text", **TEXT, rope_parameters=rope)(words).to_dict(),
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": PATCH},
        **ids,
    )  # fmt: skip


def _gemma3(words: Any) -> Any:
    return transformers.Gemma3Config(
        text_config=_text("gemma3_text", **TEXT, head_dim=32, sliding_window=8, layer_types=["sliding_attention", "full_attention"])(words),
        vision_config=transformers.SiglipVisionConfig(**EYES, image_size=SIDE, patch_size=PATCH),
        image_token_index=words.convert_tokens_to_ids("<image>"), boi_token_index=1, eoi_token_index=2, mm_tokens_per_image=4,
    )  # fmt: skip


CONFIGS: dict[str, Callable[[Any], Any]] = {
    "llama": _text("llama", **TEXT),
    "mixtral": _text("mixtral", **TEXT | {"intermediate_size": 64}, num_local_experts=4),
    "mamba": _text("mamba", hidden_size=32, state_size=8, num_hidden_layers=2),
    "mamba2": _text("mamba2", hidden_size=32, state_size=8, num_hidden_layers=2, num_heads=4, head_dim=16, n_groups=1, chunk_size=8),
    "jamba": _text("jamba", **TEXT | {"num_hidden_layers": 4}, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
                   num_experts=2, mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False),
    "bamba": _text("bamba", **TEXT, **MAMBA2, attn_layer_indices=[1]),
    "falcon_h1": _text("falcon_h1", **TEXT, **MAMBA2, mamba_d_ssm=128),
    "qwen3_next": _text("qwen3_next", **TEXT, head_dim=32, layer_types=["linear_attention", "full_attention"], num_experts=4,
                        num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16,
                        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8),
    "bloom": _text("bloom", hidden_size=32, n_layer=2, n_head=2),
    "mpt": _text("mpt", d_model=32, n_heads=2, n_layers=2, max_seq_len=256),
    "openai-gpt": _text("openai-gpt", n_embd=32, n_layer=2, n_head=2, n_positions=256),
    "lfm2": _text("lfm2", **TEXT, layer_types=["conv", "full_attention"]),
    "recurrent_gemma": _text("recurrent_gemma", **TEXT | {"num_hidden_layers": 3}, lru_width=32, attention_window_size=8, head_dim=32),
    "llava": _llava,
    "qwen2_vl": _qwen2_vl,
    "gemma3": _gemma3,
}  # fmt: skip
VISION = {"llava": LISTS, "qwen2_vl": BOTH, "gemma3": LISTS}


def save(name: str, folder: Path, seed: int = 0, step: float = 0.02) -> Path:
    """A tiny model in `folder`: seed 0 is an SFT model, and others are that and a small random step, as alignment takes."""
    words = tokenizer()
    words.chat_template = VISION.get(name, CHAT_TEMPLATE)
    marks = ["<image>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]
    words.add_tokens(marks if name in VISION else [], special_tokens=True)
    config = CONFIGS[name](words)
    torch.manual_seed(0)
    model = _class(config)(config)
    start, walk = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1, generator=start)
            if seed:
                parameter += (
                    step * torch.randn(parameter.shape, generator=walk) * parameter.std().nan_to_num(1)
                )
    model.generation_config = transformers.GenerationConfig(eos_token_id=words.eos_token_id)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if name == "llava":
        size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
        settings = {
            "patch_size": PATCH,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        }
        transformers.LlavaProcessor(CLIPImageProcessorPil(**size), words, **settings).save_pretrained(folder)
    if name == "qwen2_vl":
        Qwen2VLImageProcessorPil(
            patch_size=PATCH, min_pixels=256, max_pixels=2048, processor_class="Qwen2VLProcessor"
        ).save_pretrained(folder)
    return folder


def save_reward_model(folder: Path) -> Path:
    """A tiny reward model, for text."""
    words = tokenizer()
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(_text("llama", **TEXT, num_labels=1)(words))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _class(config: Any) -> Any:
    for auto in (transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM):
        if type(config) in auto._model_mapping:
            return auto._model_mapping[type(config)]
    raise LookupError(config.model_type)


def picture(seed: int, size: tuple[int, int] = (24, 16), kind: str = "PNG") -> bytes:
    """An image file of random colours."""
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    file = io.BytesIO()
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(file, kind)
    return file.getvalue()
