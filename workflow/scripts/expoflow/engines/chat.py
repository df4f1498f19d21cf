"""Messages to token ids through the chat template, with exactly one BOS."""

from collections.abc import Iterable, Sequence
from typing import Any

from expoflow.errors import CheckpointError
from expoflow.results import Message


def token_ids(tokenizer: Any, messages: Sequence[Message], response: str | None = None) -> list[int]:
    """Token ids of a conversation that asks for a response, or that ends with `response`."""
    return all_token_ids(tokenizer, [(messages, response)])[0]


def all_token_ids(
    tokenizer: Any, conversations: Iterable[tuple[Sequence[Message], str | None]]
) -> list[list[int]]:
    """`token_ids` of many (messages, response), at once since that is several times as fast.

    Templates that write the BOS themselves and tokenizers that add it again give one BOS all the same;
    a model that uses none gets none. Raises CheckpointError for a tokenizer without a chat template.
    """
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"tokenizer of '{tokenizer.name_or_path}' has no chat template; give one as `chat_template:` of the model"
        )
    texts = []
    for messages, response in conversations:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        turns += [{"role": "assistant", "content": response}] if response is not None else []
        texts.append(
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=response is None)
        )
    rows = [list(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
    bos = tokenizer.bos_token_id
    if bos is None:
        return rows
    adds = tokenizer("")["input_ids"][:1] == [bos]
    for ids in rows:
        if adds:
            ids.insert(0, bos)
        while ids[:2] == [bos, bos]:
            del ids[0]
    return rows
