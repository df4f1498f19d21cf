"""Chat formats in use: their templates (tests/templates), and tokenizers as their models have them, in small."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from expoflow.results import Message
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "templates"
TEXT = [
    "<|user|>\n<|system|>\n<|assistant|>\n[INST] [/INST] <<SYS>>\n<</SYS>>\nGPT4 Correct User: Assistant: USER: ASSISTANT:",
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers.",
    "Be brief. What is the capital of France? It is Paris. And of Peru? Lima, I think.",
]


@dataclass(frozen=True)
class Form:
    """A format.

    `bytes_` says whether the tokenizer is byte-level BPE (else SentencePiece's form: pieces, and bytes for what has
    none), `adds` whether it puts the BOS in front by itself, `writes` whether the template does. `end` is the token
    that ends an assistant's turn. `system` says what the template does with a system message: `taken`, `refused`,
    `lost`, or `asked` (taken in front of the last message only, if that is the user's).
    """

    name: str
    bos: str | None
    eos: str
    end: str
    more: tuple[str, ...] = ()
    bytes_: bool = False
    adds: bool = True
    writes: bool = True
    system: str = "taken"

    @property
    def template(self) -> str:
        """The Jinja text."""
        return (TEMPLATES / f"{self.name}.jinja").read_text(encoding="utf-8").removesuffix("\n")

    @property
    def adds_what_the_template_leaves_out(self) -> bool:
        """Whether a BOS comes from the tokenizer alone, so that a chat endpoint, which does not ask it, has none."""
        return self.adds and not self.writes


LLAMA_2 = {"bos": "<s>", "eos": "</s>", "end": "</s>"}
FORMS = (
    Form("chatml", None, "<|endoftext|>", "<|im_end|>", ("<|im_start|>",), bytes_=True, adds=False, writes=False),
    Form("zephyr", **LLAMA_2, writes=False),
    Form("llama-2", **LLAMA_2),
    Form(
        "llama-3", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>"), bytes_=True,
    ),
    Form("mistral-v1", **LLAMA_2, system="refused"),
    Form("mistral-v3", **LLAMA_2, more=("[INST]", "[/INST]"), system="asked"),
    Form("gemma", "<bos>", "<eos>", "<end_of_turn>", ("<start_of_turn>",), system="refused"),
    Form(
        "phi-3", "<s>", "<|endoftext|>", "<|end|>", ("<|system|>", "<|user|>", "<|assistant|>"),
        adds=False, writes=False,
    ),
    Form("tulu", **LLAMA_2, writes=False, system="lost"),
    Form("vicuna", **LLAMA_2, writes=False),
    Form("openchat", "<s>", "</s>", "<|end_of_turn|>"),
    Form(
        "command-r", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
        ("<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"), bytes_=True,
    ),
    Form(
        "deepseek", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
        ("<｜User｜>", "<｜Assistant｜>"), bytes_=True,
    ),
)  # fmt: skip

SYSTEM = Message(role="system", content="Be brief,\nand  kind.")
USER = Message(role="user", content="What is the capital of France?")
ASSISTANT = Message(role="assistant", content="Paris é 巴黎.")
AGAIN = Message(role="user", content="And of Peru?\n\n1. Lima\n2. Cusco")
CONVERSATIONS = {
    "one turn": [USER],
    "several turns": [USER, ASSISTANT, AGAIN],
    "system": [SYSTEM, USER],
    "system and several turns": [SYSTEM, USER, ASSISTANT, AGAIN],
}


@cache
def tokenizer(form: Form) -> PreTrainedTokenizerFast:
    """The form's tokenizer, with its template."""
    special = list(
        dict.fromkeys(each for each in ("<unk>", form.bos, form.eos, form.end, *form.more) if each)
    )
    if form.bytes_:
        fast = Tokenizer(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet, vocab_size=400)
    else:
        fast = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        fast.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        pieces = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(special_tokens=[*special, *pieces], vocab_size=500)
    fast.train_from_iterator(TEXT, trainer)
    state = json.loads(fast.to_str())  # the trainer takes bytes' pieces for special tokens
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    fast = Tokenizer.from_str(json.dumps(state))
    if form.adds:
        begin = [(form.bos, fast.token_to_id(form.bos))]
        fast.post_processor = processors.TemplateProcessing(
            single=f"{form.bos} $A", pair=f"{form.bos} $A {form.bos} $B", special_tokens=begin
        )
    more = {"additional_special_tokens": [each for each in special if each not in (form.bos, form.eos)]}
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token=form.bos, eos_token=form.eos, chat_template=form.template, **more
    )
