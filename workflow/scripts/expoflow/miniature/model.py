"""The miniature's architecture: a Llama of about 118,000 parameters in float32, saved as any other Llama."""

from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from expoflow.errors import CheckpointError
from expoflow.miniature import tokenizer as tok


def config() -> LlamaConfig:
    """Two layers, hidden 64, two heads of 32 (the smallest size of head that vLLM serves)."""
    tokenizer = tok.tokenizer()
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def new(seed: int) -> LlamaForCausalLM:
    """A language model with random weights, determined by the seed."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(config())


def load(folder: Path | None) -> LlamaForCausalLM:
    """The language model that lies in `folder`; CheckpointError when there is none."""
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
