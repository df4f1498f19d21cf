"""Conversations in data files: messages with role and content."""

import re
from collections.abc import Sequence
from typing import Any

from expoflow.errors import DataError
from expoflow.results import Image, Message

ROLES = ("user", "assistant", "system", "tool")
# Names of the roles in other formats. A template would leave such messages out or misread them.
ALIASES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "developer": "system",
    "function": "tool",
}
# A list of messages that was written as text, as pandas does in CSV files.
WRITTEN = re.compile(
    r"""\s*\[\s*\{(?=.*["'](role|from)["']\s*:)(?=.*["'](content|value)["']\s*:).*\}\s*\]\s*""", re.DOTALL
)
# Keys that templates or trainers read besides role and content. Others, such as a language or a
# date, do not reach a model.
READ = (
    "name", "tool_calls", "tool_call_id", "function_call", "functions", "tools", "reasoning", "reasoning_content", "thinking",
    "images", "documents", "weight",
)  # fmt: skip
EMPTY = (None, "", [], {})  # values that mean nothing, such as tool_calls: null


def conversation(
    value: Any, where: str, field: str, images: Sequence[Image] = ()
) -> tuple[list[Message], str | None]:
    """The messages in `value`, a row's `field`, and the answer to them if they end with one.

    `value` is a text, which is the user's, or a list of {role, content}. A content is a text, or a
    list with one part {"type": "text", "text": ...}. Keys without a value are ignored. The answer
    is the content of a last message from the assistant. The answer may be empty; messages of the
    user may not. Raises DataError for anything that cannot be read unambiguously; `where` is the
    row's place for its message.

    `images` are those of the row. Parts {"type": "image"} before the text say which of the user's
    messages have them, in order. Without such parts the user's first message has all of them.
    """
    if isinstance(value, str) and WRITTEN.fullmatch(value):
        raise DataError(
            f"{where}: field '{field}' is a list of messages that was written as a text; save the rows as JSON lines or"
            " Parquet, with the list itself"
        )
    if isinstance(value, str) and value.strip():
        return [Message(role="user", content=value, images=[*images] or None)], None
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{where}: field '{field}' must be a text or a list of {{role, content}} messages, not"
            f" {'empty' if value in EMPTY or isinstance(value, str) else f'a {type(value).__name__}'}"
        )
    read = [_message(each, f"{where}: message {number} of '{field}'") for number, each in enumerate(value, 1)]
    messages = _with_images(read, images, f"{where}: '{field}'")
    answer = messages.pop().content if messages[-1].role == "assistant" else None
    for number, message in enumerate(messages, 1):
        said = message.content.strip() or message.images
        if message.role == "user" and not said:  # an empty system message is intended
            raise DataError(
                f"{where}: message {number} of '{field}' is empty; write its content, or remove the message"
            )
    return messages, answer


def question(
    value: Any, where: str, field: str, images: Sequence[Image] = ()
) -> tuple[list[Message], str | None]:
    """Like `conversation`, for messages that ask for a response: the last one is from the user or a
    tool."""
    messages, answer = conversation(value, where, field, images)
    if not any(message.role == "user" for message in messages):
        raise DataError(
            f"{where}: field '{field}' has no message of the user"
            f"{' before the answer' if answer is not None else ''}; name the field that has the question"
        )
    if messages[-1].role not in ("user", "tool"):
        raise DataError(
            f"{where}: message {len(messages)} of '{field}', the last one to be answered, is of role"
            f" '{messages[-1].role}'; end with the user's"
        )
    return messages, answer


def _message(value: Any, where: str) -> tuple[Message, int]:
    """A message, and its number of places for images."""
    if not isinstance(value, dict):
        raise DataError(f"{where} is a {type(value).__name__}; write {{role, content}}")
    said = {key: each for key, each in value.items() if each not in EMPTY}
    if {"from", "value"} <= said.keys():
        raise DataError(
            f"{where} has the keys from and value (ShareGPT); write role and content, with user instead of human and"
            " assistant instead of gpt"
        )
    if more := next((key for key in said if key in READ), None):
        remedy = "give images beside the messages" if more == "images" else "remove the key, or the row"
        raise DataError(f"{where} has '{more}', which would be lost; {remedy}")
    role = said.get("role")
    if role not in ROLES:
        lower = str(role).lower()
        known = ALIASES.get(lower, lower)
        remedy = known if known in ROLES else ", ".join(ROLES)
        raise DataError(f"{where} has {f'role {role!r}' if role else 'no role'}; write {remedy}")
    content, places = _content(value.get("content"), where)
    if places and role != "user":
        raise DataError(f"{where} has an image and role '{role}'; only the user shows images")
    return Message(role=role, content=content), places


def _content(value: Any, where: str) -> tuple[str, int]:
    """The text of a content, and the number of places for images before it."""
    if isinstance(value, str):
        return value, 0
    if not isinstance(value, list):
        raise DataError(f"{where} has {'no' if value is None else 'no text as'} content; write a text")
    kinds = [each.get("type") if isinstance(each, dict) else type(each).__name__ for each in value]
    if other := next((kind for kind in kinds if kind not in ("text", "image")), None):
        remedy = 'write {"type": "image"}, and give it beside the messages, as `images`'
        remedy = remedy if other == "image_url" else "only text and image are read"
        raise DataError(f"{where} has content of type {other!r}; {remedy}")
    texts, shown = ([each for each in value if each["type"] == kind] for kind in ("text", "image"))
    places = len(shown)
    if any(said not in EMPTY for each in shown for key, said in each.items() if key != "type"):
        raise DataError(f"{where} has an image in its content; give it beside the messages, as `images`")
    if (
        len(texts) > 1
        or not (texts or places)
        or any(not isinstance(each.get("text"), str) for each in texts)
    ):
        raise DataError(
            f"{where} has {len(texts)} parts of text, which programs join in different ways; write one text"
        )
    if "image" in kinds[places:]:
        raise DataError(f"{where} has an image after its text; put images before the text")
    return "".join(each["text"] for each in texts), places


def _with_images(read: Sequence[tuple[Message, int]], images: Sequence[Image], where: str) -> list[Message]:
    """The messages with the row's images at their places."""
    places = [count for _, count in read]
    if images and not any(places):
        first = next((at for at, (message, _) in enumerate(read) if message.role == "user"), None)
        places = [len(images) * (at == first) for at in range(len(read))]
    if sum(places) != len(images):
        raise DataError(
            f"{where} has {sum(places)} places for images, and the row has {len(images)} `images`; give as many"
        )
    left = iter(images)
    return [
        message.model_copy(update={"images": [next(left) for _ in range(count)] or None})
        for (message, _), count in zip(read, places, strict=True)
    ]
