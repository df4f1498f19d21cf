"""Check pairs with one model saved by an older transformers and the other by the current one.

    for version in 4.49.0 4.57.6; do
        python3 -m venv /tmp/$version && /tmp/$version/bin/pip install torch==2.13.0 numpy transformers==$version
    done
    python bench/old_transformers.py /tmp/4.49.0 /tmp/4.57.6

It makes tiny models in the older version, and changes and saves them in both. It extrapolates with
an old sft and a new aligned model, and the other way round (sft → aligned). It compares the weights
that plain transformers loads from the result with the formula in float64, as the sweep of
tests/architectures does. It prints a Markdown table.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers as t

STEP = 2e-3


def configs() -> dict:
    """Return tiny configs by the class of their models, with keys that all versions know."""
    llama = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 128,
    }  # fmt: skip
    gemma = {**llama, "head_dim": 8}
    gpt2 = {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    tower = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28,
        "patch_size": 14, "projection_dim": 32,
    }  # fmt: skip
    sections = {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]}
    visual = {
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": 32,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 14,
    }
    tokens = {
        "image_token_id": 120,
        "video_token_id": 121,
        "vision_start_token_id": 122,
        "vision_end_token_id": 123,
    }
    return {
        "LlamaForCausalLM": t.LlamaConfig(**llama, rope_theta=5e5),
        "MistralForCausalLM": t.MistralConfig(**llama),
        "Qwen2ForCausalLM": t.Qwen2Config(**llama, tie_word_embeddings=True),
        "Gemma2ForCausalLM": t.Gemma2Config(**gemma),
        "MixtralForCausalLM": t.MixtralConfig(**llama, num_local_experts=4),
        "GPT2LMHeadModel": t.GPT2Config(**gpt2),
        "OPTForCausalLM": t.OPTConfig(
            vocab_size=128, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64,
        ),
        "BloomForCausalLM": t.BloomConfig(vocab_size=128, hidden_size=32, n_layer=2, n_head=4),
        "MambaForCausalLM": t.MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, state_size=4),
        "T5ForConditionalGeneration": t.T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4),
        "LlavaForConditionalGeneration": t.LlavaConfig(
            vision_config=t.CLIPVisionConfig(**tower), text_config=t.LlamaConfig(**llama), image_token_index=127
        ),
        "PaliGemmaForConditionalGeneration": t.PaliGemmaConfig(
            vision_config={**tower, "model_type": "siglip_vision_model", "vision_use_head": False},
            text_config={**gemma, "model_type": "gemma"}, image_token_index=127, projection_dim=32,
            hidden_size=32, vocab_size=128,
        ),
        "Qwen2VLForConditionalGeneration": t.Qwen2VLConfig(
            **llama, **tokens, rope_scaling=sections, vision_config=visual, tie_word_embeddings=False
        ),
    }  # fmt: skip


def move(model, deviation: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += deviation * torch.randn(parameter.shape)


def old(root: Path) -> None:
    """In the older version, make old-sft and old-aligned of every class."""
    for name, config in configs().items():
        torch.manual_seed(0)
        model = getattr(t, name)(config)
        for role, deviation in (("sft", 10 * STEP), ("aligned", STEP)):
            move(model, deviation)
            model.save_pretrained(root / name / f"old-{role}")


def new(root: Path, name: str) -> None:
    """In this version, make new-sft (old-sft saved again) and new-aligned, another step from it."""
    torch.manual_seed(1)
    model = getattr(t, name).from_pretrained(root / name / "old-sft", dtype=torch.float32)
    for role, deviation in (("sft", 0), ("aligned", STEP)):
        move(model, deviation)
        model.save_pretrained(root / name / f"new-{role}")


def outcome(root: Path, name: str, sft: str, aligned: str) -> str:
    """Return the result for the pair of one class."""
    from trials import compared, loaded, quiet

    folder = root / f"{name}-{sft}-{aligned}"
    folder.mkdir()
    (folder / "sft").symlink_to(root / name / f"{sft}-sft")
    (folder / "aligned").symlink_to(root / name / f"{aligned}-aligned")
    with quiet():
        theta0, theta1 = (loaded(name, folder / role) for role in ("sft", "aligned"))
    return ": ".join(filter(None, compared(name, folder, theta0, theta1)))


def main(venvs: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/architectures"))
    from trials import quiet

    with tempfile.TemporaryDirectory() as folder:
        os.environ["EXPOFLOW_STORE"] = f"{folder}/store"
        roots = {}
        for venv in venvs:
            words = [f"{venv}/bin/python", __file__, "--old", f"{folder}/{len(roots)}"]
            version = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
            roots[version] = Path(words[-1])
        orders = [(version, *order) for version in roots for order in (("old", "new"), ("new", "old"))]
        heads = [" → ".join({"old": v, "new": t.__version__}[each] for each in order) for v, *order in orders]
        print(f"| class | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}")
        for name in configs():
            with quiet():
                for root in roots.values():
                    new(root, name)
            cells = [outcome(roots[version], name, *order) for version, *order in orders]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--old":
        old(Path(sys.argv[2]))
        print(t.__version__)
    else:
        main(sys.argv[1:])
