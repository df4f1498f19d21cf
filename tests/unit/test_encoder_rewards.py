"""Reward models that are encoders: [CLS] first and [SEP] last, as their own tokenizers add them."""

from pathlib import Path

import pytest
import torch
from expoflow.config.stages import ScoreConfig
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model
from expoflow.results import Generation, Message, Prompt
from expoflow.scoring.rewards import score_responses
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP, CONTEXT = 2, 3, 64
TEMPLATES = {
    "as its tokenizer is asked": "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}",
    "with its own marks": (
        "[CLS]{% for m in messages %}{{ m['content'] }}[SEP]{% endfor %}"
        "{% if add_generation_prompt %}answer:{% endif %}"
    ),
}
PROMPTS = [
    Prompt(prompt_id=str(at), messages=[Message(role="user", content=text)])
    for at, text in enumerate(("Who is Anna?", "What does David like?", "é" * 40))
]
RESPONSES = ["A girl.", "Rice, I think.", "No."]
GENERATIONS = [
    Generation(
        prompt_id=prompt.prompt_id, sample=0, seed=0, response=text, response_tokens=1, finish_reason="stop",
        engine="transformers",
    )
    for prompt, text in zip(PROMPTS, RESPONSES, strict=True)
]  # fmt: skip


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    fast = Tokenizer(models.BPE(unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator([], trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet))
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", **special,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["ModernBERT", "DeBERTa"])
def folder(request, tmp_path_factory) -> Path:
    shape = {
        "vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_labels": 1, "max_position_embeddings": CONTEXT, "pad_token_id": 0,
        "initializer_range": 0.5,
    }  # fmt: skip
    torch.manual_seed(0)
    if request.param == "ModernBERT":
        marks = {"bos_token_id": CLS, "eos_token_id": SEP, "cls_token_id": CLS, "sep_token_id": SEP}
        model, own = ModernBertForSequenceClassification(ModernBertConfig(**shape, **marks)), tokenizer()
    else:  # whose tokenizers call [CLS] a BOS, too
        model = DebertaV2ForSequenceClassification(DebertaV2Config(**shape, relative_attention=True))
        own = tokenizer(bos_token="[CLS]", eos_token="[SEP]")
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    own.save_pretrained(path)
    return path


@pytest.mark.parametrize("template", TEMPLATES)
def test_logits_are_transformers_on_what_its_tokenizer_makes(folder, template):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    own = tokenizer()
    expected = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        turns = [{"role": "user", "content": prompt.messages[0].content}]
        turns += [{"role": "assistant", "content": response}]
        text = own.apply_chat_template(turns, chat_template=TEMPLATES[template], tokenize=False)
        ids = own(text, add_special_tokens="[CLS]" not in text)["input_ids"]
        ids = ids if len(ids) <= CONTEXT else [*ids[: CONTEXT - 1], SEP]
        with torch.inference_mode():
            expected.append(model(torch.tensor([ids])).logits.item())
    chat = Model(folder=folder, chat_template=TEMPLATES[template])
    rewards = score_responses(chat, PROMPTS, GENERATIONS, ScoreConfig())
    assert rewards == pytest.approx(expected, abs=1e-4)
    assert max(rewards) - min(rewards) > 1e-2


@pytest.mark.parametrize("template", TEMPLATES)
def test_marks_stand_once_and_stay_when_a_conversation_is_cut(template):
    own = tokenizer()
    own.chat_template = TEMPLATES[template]
    chat = Chat(own)
    long = chat.token_ids(PROMPTS[2].messages, "no")
    assert len(long) > CONTEXT
    for ids in (chat.token_ids(PROMPTS[0].messages, "no"), long, chat.cut(long, CONTEXT)):
        assert (ids[0], ids[-1]) == (CLS, SEP)
        assert ids[1] != CLS
        assert ids[-2] != SEP
    assert chat.cut(long, CONTEXT) == [*long[: CONTEXT - 1], SEP]
    assert chat.cut(long, len(long)) == long
    asked = chat.token_ids(PROMPTS[0].messages)
    assert asked[-1] != SEP  # a response is to follow
