"""Measure when `snakemake --cores all` refuses wrong models and prompts, and what that costs.

    python bench/refused.py --results results --work DIR

`--results` are those of a finished default run; its models are copied and broken. The table has one
row per situation: the message, seconds from the command to its end, jobs started, and tokens
generated. The first row is a run that is planned and not refused, for comparison.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

REPOSITORY = Path(__file__).parents[1]
SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
)
DEAF = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}{% endif %}{% endfor %}"
SFT, ALIGNED, REWARD = "mini-sft", "mini-dpo20", "mini-reward"


def config(folder: Path, **settings) -> None:
    path = folder / "config.json"
    changed = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))


def weights(folder: Path, change) -> None:
    tensors = change(load_file(folder / "model.safetensors"))
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def renamed(change):
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


def other_weights(tensors):
    random = torch.Generator().manual_seed(7)
    return {
        k: torch.randn(v.shape, generator=random).to(v.dtype) * v.float().std() for k, v in tensors.items()
    }


def template(text: str):
    def change(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        path.write_text(text + path.read_text() if text is SYSTEM else text)

    return change


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


LABELS = {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
PROMPT = {"role": "user", "content": "Where is the cat?"}
# For each situation, the broken model and how it is broken, or the prompts.
SITUATIONS = {
    "nothing is wrong (dry run)": (None, None),
    "both models saved from a compiled model (`_orig_mod.`)": (
        (SFT, ALIGNED),
        lambda at: weights(at, renamed(lambda n: f"_orig_mod.{n}")),
    ),
    "more layers in config.json than in the files": ((SFT, ALIGNED), lambda at: config(at, num_hidden_layers=9)),
    "untied, and saved without its head": ((SFT, ALIGNED), lambda at: config(at, tie_word_embeddings=False)),
    "the class of another model in config.json": ((SFT, ALIGNED), lambda at: config(at, model_type="mamba")),
    "an encoder with a decoder": ((SFT, ALIGNED), lambda at: config(at, model_type="t5")),
    "an aligned model that was not trained from the SFT model": ((ALIGNED,), lambda at: weights(at, other_weights)),
    "reward model: head of two layers": (
        (REWARD,),
        lambda at: weights(at, renamed(lambda n: n.replace("score.", "score.0."))),
    ),
    "reward model: a language model": ((REWARD,), lambda at: weights(at, lambda t: {k: v for k, v in t.items() if "score" not in k})),
    "reward model: two logits": ((REWARD,), lambda at: config(at, **LABELS)),
    "reward model: no padding token": ((REWARD,), lambda at: config(at, pad_token_id=None)),
    "reward model: no chat template": ((REWARD,), no_template),
    "template refuses the system role": ((ALIGNED,), template(SYSTEM)),
    "template leaves the questions out": ((ALIGNED,), template(DEAF)),
    "prompts longer than the context": ((ALIGNED,), lambda at: config(at, max_position_embeddings=8)),
    "prompts: role `human`": ("prompts", {"role": "human", "content": "Where is the cat?"}),
    "prompts: empty content": ("prompts", {"role": "user", "content": " "}),
    "reward model: NaN for a conversation": (
        (REWARD,),
        lambda at: weights(at, lambda t: {k: torch.full_like(v, float("nan")) if k == "score.weight" else v for k, v in t.items()}),
    ),
}  # fmt: skip


def made(work: Path, models: Path, broken, how) -> Path:
    """A folder with a config, models and prompts, one of which is wrong."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in (SFT, ALIGNED, REWARD):
        folder = Path(shutil.copytree(models / name, work / name))
        if broken not in (None, "prompts") and name in broken:
            how(folder)
    rows = [{"prompt": [{"role": "system", "content": "Be kind."}, PROMPT]}, {"prompt": "Who is there?"}]
    rows += [{"prompt": [how]}] if broken == "prompts" else []
    (work / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "models": {name: {"path": name} for name in (SFT, ALIGNED, REWARD)},
        "pairs": {"one": {"sft": SFT, "aligned": ALIGNED, "alphas": [5]}},
        "prompts": {"dev": {"file": "p.jsonl"}},
        "reward_model": REWARD,
        "generate": {"max_tokens": 64},
    }
    (work / "config.yaml").write_text(yaml.safe_dump(settings))
    return work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    where = parser.parse_args()
    print(
        "| situation | message | seconds | jobs started | tokens generated |\n| --- | --- | ---: | ---: | ---: |"
    )
    for number, (situation, (broken, how)) in enumerate(SITUATIONS.items()):
        folder = made(where.work / str(number), where.results.resolve() / "models", broken, how)
        command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--cores", "all"]
        command += ["--configfile", "config.yaml", *([] if broken else ["--dry-run"])]
        start = time.monotonic()
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"EXPOFLOW_STORE": str(folder / "store"), "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seconds = time.monotonic() - start
        lines = [row for path in folder.rglob("*.generations.jsonl") for row in path.read_text().splitlines()]
        tokens = sum(json.loads(row)["response_tokens"] for row in lines)
        jobs = len(re.findall(r"^Job \d+: ", done.stdout, re.MULTILINE))
        said = re.findall(r"^(?:.*error: |(?:models|pairs|prompts)\.\S+: )(.*)$", done.stdout, re.MULTILINE)
        words = (said or ["-"])[0].replace(f"{folder}/", "").replace("|", "\\|")
        assert (done.returncode == 0) == (broken is None), done.stdout
        print(
            f"| {situation} | {words} | {seconds:.0f} | {0 if broken is None else jobs} | {tokens} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
