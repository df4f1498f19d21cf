"""Messages to token ids through the chat template, with exactly one BOS."""

from collections.abc import Sequence
from typing import Any

from expoflow.errors import CheckpointError
from expoflow.records import Message


def token_ids(tokenizer: Any, messages: Sequence[Message], response: str | None = None) -> list[int]:
    """Token ids of a conversation that asks for a response, or that ends with `response`.

    Templates that write the BOS themselves and tokenizers that add it again give one BOS all the same;
    a model that uses none gets none. Raises CheckpointError for a tokenizer without a chat template.
    """
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"tokenizer of '{tokenizer.name_or_path}' has no chat template; give one as `chat_template:` of the model"
        )
    conversation = [{"role": message.role, "content": message.content} for message in messages]
    if response is not None:
        conversation.append({"role": "assistant", "content": response})
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=response is None)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    bos = tokenizer.bos_token_id
    if bos is not None and tokenizer("")["input_ids"][:1] == [bos]:
        ids.insert(0, bos)
    while bos is not None and ids[:2] == [bos, bos]:
        del ids[0]
    return ids
