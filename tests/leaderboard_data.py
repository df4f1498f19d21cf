"""Miniature copies of the leaderboard's datasets, in the hub's own layout and columns, and a model to ask."""

import random
from pathlib import Path

import lm_eval.tasks
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [
    "sun",
    "rain",
    "stone",
    "river",
    "bird",
    "iron",
    "salt",
    "leaf",
    "wind",
    "glass",
    "wool",
    "moon",
    "seed",
    "clay",
    "fish",
    "rope",
]
MMLU = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
SUBJECTS = sorted(yaml.safe_load(path.read_text())["dataset_name"] for path in MMLU.glob("mmlu_*.yaml"))
SIZES = {"arc": 5, "hellaswag": 4, "gsm8k": 3, "winogrande": 5, "truthfulqa": 4}


def write_all(folder: Path) -> Path:
    """All six datasets below `folder`, as `hf download --repo-type dataset` lays them out."""
    rng = random.Random(0)

    def some(count: int) -> str:
        return " ".join(rng.choices(WORDS, k=count))

    def arc(number: int) -> dict:
        labels = ["A", "B", "C", "D"] if number % 3 else ["1", "2", "3", "4"]
        choices = {"text": [some(2) for _ in labels], "label": labels}
        return {
            "id": f"a{number}",
            "question": f"{some(4)}?",
            "choices": choices,
            "answerKey": labels[number % 4],
        }

    def hellaswag(number: int) -> dict:
        first, second = f"{some(3)} [header] {some(2)}.", some(3)
        return {
            "ind": number, "activity_label": "Cooking", "ctx_a": first, "ctx_b": second,
            "ctx": f"{first} {second}", "endings": [f"{some(3)}." for _ in range(4)], "source_id": f"w~{number}",
            "split": "train", "split_type": "indomain", "label": str(number % 4),
        }  # fmt: skip

    def mmlu(number: int) -> dict:
        return {
            "question": f" {some(3)}? ",
            "subject": "any",
            "choices": [some(1) for _ in range(4)],
            "answer": number % 4,
        }

    def gsm8k(number: int) -> dict:
        return {
            "question": f"{number} and 2?",
            "answer": f"It is <<{number}+2={number + 2}>>.\n#### {number + 2}",
        }

    def winogrande(number: int) -> dict:
        return {
            "sentence": f"{some(2)} because _ was {some(1)}.",
            "option1": "Ann",
            "option2": "Bo",
            "answer": "12"[number % 2],
        }

    def truthfulqa(number: int) -> dict:
        def targets(right: int, wrong: int) -> dict:
            choices = [some(3) for _ in range(right + wrong)]
            return {"choices": choices, "labels": [1] * right + [0] * wrong}

        return {"question": f"{some(3)}?", "mc1_targets": targets(1, 3), "mc2_targets": targets(2, 3)}

    def dataset(name: str, configs: dict[str, dict[str, list[dict]]]) -> None:
        listed = []
        for config, splits in configs.items():
            files = []
            for split, rows in splits.items():
                path = f"{config}/{split}-00000-of-00001.parquet"
                (folder / name / config).mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), folder / name / path)
                files.append({"split": split, "path": f"{config}/{split}-*"})
            listed.append({"config_name": config, "data_files": files})
        head = yaml.safe_dump({"configs": listed})
        (folder / name / "README.md").write_text(f"---\n{head}---\n")

    def rows(make, count: int) -> list[dict]:
        return [make(number) for number in range(count)]

    dataset("allenai/ai2_arc", {"ARC-Challenge": {"train": rows(arc, 30), "validation": rows(arc, 2), "test": rows(arc, SIZES["arc"])}})  # fmt: skip
    dataset("Rowan/hellaswag", {"default": {"train": rows(hellaswag, 12), "validation": rows(hellaswag, SIZES["hellaswag"])}})  # fmt: skip
    # subjects of different size: their mean is not the mean over questions
    dataset("cais/mmlu", {name: {"test": rows(mmlu, 2 + i % 2), "validation": rows(mmlu, 1), "dev": rows(mmlu, 5)} for i, name in enumerate(SUBJECTS)})  # fmt: skip
    dataset("openai/gsm8k", {"main": {"train": rows(gsm8k, 8), "test": rows(gsm8k, SIZES["gsm8k"])}})
    dataset("allenai/winogrande", {"winogrande_xl": {"train": rows(winogrande, 8), "validation": rows(winogrande, SIZES["winogrande"])}})  # fmt: skip
    dataset("truthfulqa/truthful_qa", {"multiple_choice": {"validation": rows(truthfulqa, SIZES["truthfulqa"])}})  # fmt: skip
    return folder


def write_model(folder: Path, seed: int = 0) -> Path:
    """A Llama with random weights and a token for every byte; its tokenizer writes a BOS by itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    fast = Tokenizer(models.BPE(vocab, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    from tokenizers.processors import TemplateProcessing

    fast.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocab), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=4096, initializer_range=0.3, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        dtype="float32",
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
