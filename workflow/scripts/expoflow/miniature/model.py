"""The miniature's architecture: a Llama of 121,000 or 690,000 parameters in float32."""

from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from expoflow.errors import CheckpointError
from expoflow.miniature import tokenizer as tok

SIZES = {"small": (64, 2), "large": (128, 3)}  # hidden size, layers
HEAD = 32  # the smallest head size that vLLM supports


def config(size: str = "small") -> LlamaConfig:
    """Return a config with two layers of hidden size 64, or three of 128."""
    tokenizer = tok.tokenizer()
    hidden, layers = SIZES[size]
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD,
        num_key_value_heads=hidden // HEAD,
        head_dim=HEAD,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def new(seed: int, size: str = "small") -> LlamaForCausalLM:
    """Return a language model with random weights, determined by the seed."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(config(size))


def load(folder: Path | None) -> LlamaForCausalLM:
    """Load the language model in `folder`; CheckpointError if there is none."""
    if folder is None or not (Path(folder) / "config.json").is_file():
        raise CheckpointError(f"{folder}: no checkpoint to start from; train the SFT model first")
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write an ordinary Hugging Face checkpoint: weights, config, generation config, tokenizer."""
    model.eval()
    settings = model.config
    model.generation_config = GenerationConfig(
        bos_token_id=settings.bos_token_id,
        eos_token_id=settings.eos_token_id,
        pad_token_id=settings.pad_token_id,
    )
    model.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tok.save(folder)
