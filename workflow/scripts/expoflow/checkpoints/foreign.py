"""Folders without a model in transformers' format: what they hold instead, and how to make a model
from it."""

import re
from pathlib import Path

# By the names of files and folders: what they are, and the remedy. The first match is reported.
FORMS = (
    (
        r"zero_to_fp32\.py|global_step\d+",
        "DeepSpeed's checkpoint of a training; run in this folder: python zero_to_fp32.py . OUT, and give"
        " OUT with config.json and the tokenizer",
    ),
    (
        r"pytorch_model_fsdp_\d+|.*\.distcp",
        "FSDP's sharded checkpoint of a training; run: accelerate merge-weights SHARDS OUT, and give OUT with config.json and"
        " the tokenizer",
    ),
    (
        r"adapter_model\.(safetensors|bin)",
        "an adapter without its adapter_config.json; save the adapter again (peft: save_pretrained)",
    ),
    (
        r"consolidated.*\.(safetensors|pth)",
        "a model in Meta's or Mistral's own format; give the same model as transformers has it (on the hub: model*.safetensors"
        " of the repository, or of the one whose name ends in -hf)",
    ),
    (r".*\.gguf", "a model for llama.cpp; give the one that it was made from, in safetensors"),
    (
        r".*\.(h5|msgpack)",
        "a model for TensorFlow or Flax; give the one in safetensors that its repository has, or load it with transformers 4"
        " (from_tf=True, from_flax=True) and save it",
    ),
    (
        r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)",
        "shards without their index; download the file *.index.json of the model too",
    ),
    (r"checkpoint-\d+", "checkpoints of a training; give one of these folders"),
)


def explained(folder: Path) -> str | None:
    """What a folder has instead of weights that transformers can load, with the remedy; None if it
    is unknown."""
    names = sorted(path.name for path in folder.iterdir())
    for pattern, what in FORMS:
        if found := next((name for name in names if re.fullmatch(pattern, name)), None):
            return f"found {found}: {what}"
    return None
