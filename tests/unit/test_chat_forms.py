"""Twelve real chat formats: token ids are transformers' own, no BOS stands twice, and what a template loses is said."""

from itertools import pairwise

import pytest
from chat_forms import AGAIN, ASSISTANT, CONVERSATIONS, FORMS, SYSTEM, USER, Form, tokenizer
from expoflow.engines.chat import Chat
from expoflow.errors import DataError
from expoflow.results import Message

ids_of_forms = {"ids": lambda form: form.name}


def theirs(form: Form, messages: list[Message], response: str | None = None) -> list[int]:
    """transformers' own ids, and the BOS that the tokenizer adds if the template leaves it out."""
    turns = [{"role": each.role, "content": each.content} for each in messages]
    turns += [{"role": "assistant", "content": response}] if response is not None else []
    own = tokenizer(form).apply_chat_template(
        turns, add_generation_prompt=response is None, return_dict=False, date_string="26 Jul 2024"
    )
    return [tokenizer(form).bos_token_id] * form.adds_what_the_template_leaves_out + own


def twice(ids: list[int], token: int | None) -> bool:
    return any(pair == (token, token) for pair in pairwise(ids))


@pytest.mark.parametrize("form", FORMS, **ids_of_forms)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_ids_are_transformers(form, conversation):
    messages = CONVERSATIONS[conversation]
    chat, bos = Chat(tokenizer(form)), tokenizer(form).bos_token_id
    if form.system in ("refused", "lost") and messages[0] is SYSTEM:
        why = "refuses it" if form.system == "refused" else "leaves out the message of role 'system'"
        with pytest.raises(DataError, match=f"{why}.*set `system: merge` or `system: drop` of the model"):
            chat.token_ids(messages)
        return
    ids = chat.token_ids(messages)
    assert ids == theirs(form, messages)
    assert (ids[0] == bos) == (form.adds or form.writes) == (bos is not None and form.name != "phi-3")
    assert not twice(ids, bos)
    if form.name != "llama-2":  # its format has one before every user's turn
        assert ids.count(bos) == (ids[0] == bos)


@pytest.mark.parametrize("form", FORMS, **ids_of_forms)
def test_ids_of_a_conversation_with_its_response_are_transformers(form):
    chat = Chat(tokenizer(form))
    for messages in ([USER], [USER, ASSISTANT, AGAIN]):
        ids = chat.token_ids(messages, "Lima, I think.")
        assert ids == theirs(form, messages, "Lima, I think.")
        assert not twice(ids, tokenizer(form).bos_token_id)
    if form.system == "asked":
        with pytest.raises(DataError, match="leaves out the message of role 'system'"):
            chat.token_ids([SYSTEM, USER], "Lima, I think.")


@pytest.mark.parametrize("form", FORMS, **ids_of_forms)
@pytest.mark.parametrize("conversation", ["system", "system and several turns"])
def test_a_system_message_is_merged_or_dropped(form, conversation):
    messages = CONVERSATIONS[conversation]
    rest = messages[2:]
    both = Message(role="user", content=f"{SYSTEM.content}\n\n{USER.content}")
    assert Chat(tokenizer(form), system="merge").token_ids(messages) == theirs(form, [both, *rest])
    assert Chat(tokenizer(form), system="drop").token_ids(messages) == theirs(form, messages[1:])


@pytest.mark.parametrize("form", FORMS, **ids_of_forms)
def test_the_end_of_a_turn_is_found(form):
    own = tokenizer(form)
    assert Chat(own).turn_end() == own.convert_tokens_to_ids(form.end)
