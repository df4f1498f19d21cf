"""What real folders carry: ties left to the class, old names, leftovers, adapters; each is made anew of a tiny model."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import transformers
import trials
from safetensors.torch import load_file, save_file

State = dict[str, torch.Tensor]
WEIGHTS = "model.safetensors"


def tensors(change: Callable[[State], State], *roles: str) -> Callable[[Path], None]:
    """Change the tensors in the files of these two, or one of them."""

    def damage(root: Path) -> None:
        for role in roles:
            save_file(
                change(load_file(root / role / WEIGHTS)), root / role / WEIGHTS, metadata={"format": "pt"}
            )

    return damage


def config(change: dict, *roles: str) -> Callable[[Path], None]:
    """Change entries of config.json; None takes one out, ... makes it null."""

    def damage(root: Path) -> None:
        for role in roles:
            file = root / role / "config.json"
            entries = json.loads(file.read_text()) | change
            kept = {name: None if each is ... else each for name, each in entries.items() if each is not None}
            file.write_text(json.dumps(kept))

    return damage


def both(*damages: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda root: [damage(root) for damage in damages]


def empty(state: State) -> State:
    return {name: torch.empty(0) for name in state}


def extra(**more: torch.Tensor) -> Callable[[State], State]:
    return lambda state: state | {name.replace("__", "."): each.clone() for name, each in more.items()}


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: each for name, each in state.items()}


def next_layer(state: State) -> State:
    """A layer more, as DeepSeek's for the prediction of several tokens."""
    last = max(int(name.split(".")[2]) for name in state if name.startswith("model.layers."))
    more = {
        n.replace(f"layers.{last}.", f"layers.{last + 1}."): t.clone()
        for n, t in state.items()
        if f"layers.{last}." in n
    }
    return state | more | {f"model.layers.{last + 1}.eh_proj.weight": torch.randn(32, 64)}


def masks(kind: torch.dtype) -> Callable[[State], State]:
    """The constant mask of every layer of a GPT-NeoX, as old files store it."""
    mask = torch.ones(16, 16).tril().view(1, 1, 16, 16).to(kind)
    return lambda state: state | {f"gpt_neox.layers.{each}.attention.bias": mask.clone() for each in range(2)}


def null_metadata(root: Path) -> None:
    sharded(root)
    file = root / "aligned/model.safetensors.index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"metadata": None}))


def sharded(root: Path) -> None:
    """aligned in two shards."""
    folder = root / "aligned"
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    where = {name: names[at % 2] for at, name in enumerate(state)}
    for file in names:
        save_file(
            {name: state[name] for name in state if where[name] == file},
            folder / file,
            metadata={"format": "pt"},
        )
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": where})
    )


def pickled(root: Path) -> None:
    """Both as pytorch_model.bin, with an entry that is no tensor, as TransformerEngine's."""
    for role in ("sft", "aligned"):
        state = load_file(root / role / WEIGHTS) | {"model.layers.0.self_attn._extra_state": None}
        (root / role / WEIGHTS).unlink()
        torch.save(state, root / role / "pytorch_model.bin")


def merged_beside(root: Path) -> None:
    """Another whole model, in shards, in the folder of the adapter."""
    for file in ("config.json", WEIGHTS):
        (root / "aligned" / file).write_bytes((root / "sft" / file).read_bytes())
    tensors(lambda state: {name: each + 0.01 for name, each in state.items()}, "aligned")(root)
    sharded(root)


def counters(state: State) -> State:
    """BatchNorm after a hundred steps more."""
    return {
        name: each + 100 if name.endswith("num_batches_tracked") else each for name, each in state.items()
    }


def unsaid(root: Path) -> None:
    for role in ("sft", "aligned"):
        trials.unsaid(root / role)


LLAMA, PAIRS = "LlamaForCausalLM", trials.PAIRS
Folder = tuple[str, str, Callable[[Path], None] | None]
# By name: the class, how the sweep saves its pair, and what is done to the two folders then.
FOLDERS: dict[str, Folder] = {
    "nothing: a good pair (Qwen2-VL)": ("Qwen2VLForConditionalGeneration", "as saved", None),
    "the same (T5)": ("T5ForConditionalGeneration", "as saved", None),
    "the same (DeepSeek-V3)": ("DeepseekV3ForCausalLM", "as saved", None),
    "the same (GPT-NeoX)": ("GPTNeoXForCausalLM", "as saved", None),
    "the same (Granite Speech)": ("GraniteSpeechForConditionalGeneration", "as saved", None),
    "a stored copy of a tied head, in aligned (Mamba)": ("MambaForCausalLM", "tied copies in aligned", None),
    "the same, and no config says that it is tied (Gemma 2)": ("Gemma2ForCausalLM", "tied copies in aligned", unsaid),
    "stored copies of tied embeddings, in sft (T5)": ("T5ForConditionalGeneration", "tied copies in sft", None),
    "adapter with embeddings, tied by the class (Gemma 2)": ("Gemma2ForCausalLM", "adapter with embeddings", None),
    "adapter (Gemma 2)": ("Gemma2ForCausalLM", "adapter without", None),
    "adapter of a renamed module (Qwen2-VL)": ("Qwen2VLForConditionalGeneration", "adapter without", None),
    "adapter beside another whole model in shards": (LLAMA, "adapter without", merged_beside),
    "names of the hub against those of modules (Qwen2-VL)": ("Qwen2VLForConditionalGeneration", "module names", None),
    "experts one by one against fused (Mixtral)": ("MixtralForCausalLM", "module names", None),
    "names of the bare model in sft (GPT-2)": (
        "GPT2LMHeadModel", "as saved",
        tensors(lambda state: {name.removeprefix("transformer."): each for name, each in state.items()}, "sft"),
    ),
    "`_orig_mod.` before the names of aligned": (LLAMA, "as saved", tensors(prefixed("_orig_mod."), "aligned")),
    "a value head in aligned": (
        LLAMA, "as saved", tensors(extra(v_head__summary__weight=torch.ones(1, 32)), "aligned"),
    ),
    "a layer for several tokens in aligned only (DeepSeek-V3)": (
        "DeepseekV3ForCausalLM", "as saved", tensors(next_layer, "aligned"),
    ),
    "no elements in aligned (ZeRO-3)": (LLAMA, "as saved", tensors(empty, "aligned")),
    "no elements in both": (LLAMA, "as saved", tensors(empty, "sft", "aligned")),
    "`head_dim: null` in sft (Mistral)": ("MistralForCausalLM", "as saved", config({"head_dim": ...}, "sft")),
    "`LLaMAForCausalLM` in sft": (LLAMA, "as saved", config({"architectures": ["LLaMAForCausalLM"]}, "sft")),
    "masks stored as uint8 and as bool (GPT-NeoX)": (
        "GPTNeoXForCausalLM", "as saved", both(tensors(masks(torch.uint8), "sft"), tensors(masks(torch.bool), "aligned")),
    ),
    "a constant that is -Inf in sft": (
        "GPTNeoXForCausalLM", "as saved",
        both(*(tensors(extra(gpt_neox__layers__0__attention__masked_bias=torch.tensor(each)), role)
               for each, role in ((-torch.inf, "sft"), (-1e9, "aligned")))),
    ),
    "complex tables in both": (
        LLAMA, "as saved", tensors(extra(freqs_cis=torch.polar(torch.ones(8), torch.arange(8.0))), "sft", "aligned"),
    ),
    "BatchNorm's counters moved (Granite Speech)": (
        "GraniteSpeechForConditionalGeneration", "as saved", tensors(counters, "aligned"),
    ),
    "`metadata: null` in the index": (LLAMA, "as saved", null_metadata),
    "an entry of a .bin that is no tensor": (LLAMA, "as saved", pickled),
}  # fmt: skip


def made(name: str, root: Path) -> tuple[State, State]:
    """The pair of a folder, in `root`, and what plain transformers loads of the two; if it cannot, what it loaded before."""
    kind, pair, damage = FOLDERS[name]
    with trials.quiet():
        model, theta0 = trials.first(kind, root / "sft")
        theta1 = PAIRS[pair](model, root, theta0)
        if damage:
            damage(root)
    if damage and not pair.startswith("adapter without"):
        with suppress(Exception):
            return loaded(kind, root / "sft")[0], loaded(kind, root / "aligned")[0]
    return theta0, theta1


def loaded(kind: str, folder: Path) -> tuple[State, str]:
    """What plain transformers loads of a folder, and what of it is random."""
    with trials.quiet():
        model, report = getattr(transformers, kind).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    return dict(model.state_dict()), f"{len(report['missing_keys'])} tensors are random" * bool(
        report["missing_keys"]
    )
