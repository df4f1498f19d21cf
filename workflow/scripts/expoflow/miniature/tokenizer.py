"""The miniature's tokenizer: one token per word or mark; the chat template writes the BOS."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from expoflow.miniature.language import vocabulary

PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT = SPECIAL = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "<user>",
    "<assistant>",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<assistant>' + message['content'] + eos_token }}"
    "{% else %}{{ '<user>' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer, which is the same for all seeds.

    It adds no BOS; the chat template does. Words are separated by a space and marks follow a word
    directly, so decode(encode(text)) == text for all text of the world.
    """
    vocab = {token: i for i, token in enumerate((*SPECIAL, *vocabulary()))}
    fast = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    fast.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # used only to join marks to words
    fast.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def save(folder: Path) -> None:
    """Write the tokenizer's files, chat template included, into a checkpoint folder."""
    tokenizer().save_pretrained(folder)
