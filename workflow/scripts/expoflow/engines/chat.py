"""Turn messages into token ids through a model's chat template, with exactly one BOS.

A message that the template drops is an error.
"""

import json
import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from jinja2 import TemplateSyntaxError

from expoflow.config.sources import DATE
from expoflow.data.prompts import plain, prompt_id
from expoflow.engines import vision
from expoflow.engines.model import Model, Pictures
from expoflow.errors import CheckpointError, DataError
from expoflow.results import Message

Turn = dict[str, Any]
QUESTION, ANSWER = "the question 5417", "the answer 9032"
SWITCH = re.compile(r"/(no_?)?think\b")  # templates read this switch and leave it out of the text
END_OF_REASONING = "</think>"


class Chat:
    """A tokenizer, with the way a model reads conversations.

    `name` is the model's name in errors. `system` says what happens to system messages: `keep`
    leaves them; `merge` puts their text and a blank line before the first user message; `drop`
    removes them. `date` (ISO) is the day that `strftime_now` gives to a template. Images are read
    with the processor of `sees`, a vision-language model; without it, images are refused.
    """

    def __init__(
        self,
        tokenizer: Any,
        name: str = "",
        system: str = "keep",
        date: str = DATE,
        sees: Model | None = None,
    ):
        self.tokenizer, self.system, self.sees = tokenizer, system, sees
        self.name = name or tokenizer.name_or_path
        self.now = datetime.fromisoformat(date).strftime
        self._tried: set[tuple[Any, ...]] = set()

    @classmethod
    def of(cls, tokenizer: Any, model: Model, images: bool = False) -> Self:
        """Return the chat of a model and its tokenizer; `images` allows images in prompts."""
        return cls(tokenizer, str(model.folder), model.system, model.date, model if images else None)

    def token_ids(self, messages: Sequence[Message], response: str | None = None) -> list[int]:
        """Return token ids of a conversation that asks for a response or ends with `response`."""
        return self.all_token_ids([(messages, response)])[0]

    def all_token_ids(self, conversations: Iterable[tuple[Sequence[Message], str | None]]) -> list[list[int]]:
        """Return `token_ids` of many (messages, response) at once, which is several times as fast.

        If the template writes the BOS and the tokenizer adds it again, the result still has one
        BOS. A model that uses no BOS gets none. If the tokenizer adds [CLS] and [SEP], a
        conversation that ends with a response has both. Raises what `text` raises, and DataError if
        two different prompts give the same text.
        """
        given = list(conversations)
        texts = [self.text(messages, response) for messages, response in given]
        self._require_different(given, texts)
        shown = [_images(messages) for messages, _ in given]
        rows = iter(self._tokenized([text for text, images in zip(texts, shown, strict=True) if not images]))
        return [
            self._whole(
                each, text, self._seen(each[0], text, images) if images else self._unseen(each[0], next(rows))
            )
            for each, text, images in zip(given, texts, shown, strict=True)
        ]

    def pictures(self, messages: Sequence[Message]) -> Pictures | None:
        """Return a prompt's images, with a placeholder for each in its text; None without any."""
        if not (images := _images(messages)):
            return None
        text = self.text(messages)
        return Pictures(images, text, self._whole((messages, None), text, self._tokenized([text])[0]))

    def _tokenized(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def _seen(self, messages: Sequence[Message], text: str, images: list[bytes]) -> list[int]:
        """Return token ids of a text with images."""
        try:
            return self._processor(messages).token_ids(text, images)
        except DataError as error:
            raise DataError(f"{self._where(messages)}: {error}") from None

    def _processor(self, messages: Sequence[Message]) -> vision.Processor:
        """Return the processor that reads the images of these messages."""
        if self.sees is None:
            raise DataError(
                f"{self._where(messages)}: has images, but only its text would be read; remove the images"
            )
        return vision.processor(self.sees, self.tokenizer)

    def _unseen(self, messages: Sequence[Message], ids: list[int]) -> list[int]:
        """Return `ids`, after checking that a conversation without images has no image token."""
        if self._place is not None and self._place in ids:
            raise DataError(
                f"{self._where(messages)}: its text has {self.tokenizer.decode([self._place])!r}, which stands for an image, and"
                " it has no images; give `images` beside the messages, or change the text"
            )
        return ids

    @cached_property
    def _place(self) -> int | None:
        return vision.place(self.sees.folder) if self.sees else None

    def _whole(
        self, conversation: tuple[Sequence[Message], str | None], text: str, ids: list[int]
    ) -> list[int]:
        """Return `ids` of `text` with the single BOS, or the [CLS] and [SEP], that it must have."""
        messages, response = conversation
        (cls, sep), bos = self._brackets, self.tokenizer.bos_token_id
        if sep is not None and response is not None:
            begin_with(ids, cls)
            if not text.rstrip().endswith(self.tokenizer.sep_token):
                ids.append(sep)
        elif self._adds_bos and not text.lstrip().startswith(self.tokenizer.bos_token):
            begin_with(ids, bos)
        while len(ids) > 1 and ids[0] == ids[1] and ids[0] in (bos, cls):
            del ids[0]
        if not ids:
            raise DataError(
                f"{self._where(messages)}: the chat template turns it into no tokens; {self._another()}"
            )
        return ids

    @cached_property
    def _adds_bos(self) -> bool:
        """Whether the tokenizer itself puts a BOS before a text."""
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("")["input_ids"][:1] == [bos]

    def cut(self, ids: list[int], context: int) -> list[int]:
        """Return the first `context` token ids of a conversation; a final [SEP] is kept."""
        _, sep = self._brackets
        if len(ids) <= context or sep is None:
            return ids[:context]
        return [*ids[: context - 1], sep]

    def text(self, messages: Sequence[Message], response: str | None = None, **options: Any) -> str:
        """Return the conversation as the template writes it; `options` go to `apply_chat_template`.

        Raises CheckpointError if there is no chat template or if it is not valid Jinja, and
        DataError if the template refuses the conversation or drops a message.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise CheckpointError(
                f"tokenizer of '{self.name}' has no chat template; give one as `chat_template:` of the model"
            )
        if any(message.images for message in messages):
            self._processor(messages)  # this error explains more than the template's own would
        turns = with_system(_turns(messages), self.system)
        turns += [{"role": "assistant", "content": response}] if response is not None else []
        options = {"add_generation_prompt": response is None, "strftime_now": self.now, **options}
        try:
            text = self._applied(turns, **options)
        except TemplateSyntaxError as error:
            raise CheckpointError(
                f"model '{self.name}': its chat template is not valid Jinja (line {error.lineno}: {_line(error)}); "
                "correct it, or give another as `chat_template:` of the model"
            ) from None
        except Exception as error:  # whatever the template's author has written
            raise DataError(
                f"{self._where(messages)}: the chat template refuses it ({_line(error)}); {self._remedy(turns)}"
            ) from None
        if lost := self._ignored(turns, options) or _lost(text, turns):
            raise DataError(
                f"{self._where(messages)}: the chat template leaves out the message of role '{lost['role']}' "
                f"({_short(lost['content'])}); {self._remedy([lost])}"
            )
        return text

    def turn_end(self) -> int | None:
        """Return the token that the template writes after an assistant's text.

        Return None if it is not a separate token, or if it begins a turn, that is, if it also
        stands right before a message's text. White space around the token is ignored.
        """
        asked = [Message(role="user", content=QUESTION)]
        try:
            text = self.text(asked, ANSWER)
        except (CheckpointError, DataError):
            return None  # the error will come with the prompts
        before, _, after = text.rpartition(ANSWER)
        end = self._tokens(after)
        begins = [self._tokens(part)[-1:] for part in (before, before.partition(QUESTION)[0])]
        own = {*self.tokenizer.get_added_vocab().values(), *self.tokenizer.all_special_ids}
        return end[0] if end and own.issuperset(end) and end[:1] not in begins else None

    def _ignored(self, turns: Sequence[Turn], options: dict[str, Any]) -> Turn | None:
        """Return the first turn that the template drops when every turn has a unique text.

        The same sequence of roles is tried only once.
        """
        roles = (*(turn["role"] for turn in turns), options["add_generation_prompt"])
        if roles in self._tried:
            return None
        self._tried.add(roles)
        marked = [turn | {"content": f"the {at}th message 5417"} for at, turn in enumerate(turns)]
        with suppress(Exception):  # a template may reject these texts
            text = self._applied(marked, **options)
            lost = _missing(text, marked)
            return None if lost is None else turns[lost]
        return None

    def _applied(self, turns: Sequence[Turn], **options: Any) -> str:
        """Return the text of turns.

        Contents are lists of parts if a turn has images or the template expects lists.
        """
        if self._lists or any("images" in turn for turn in turns):
            turns = [_listed(turn) for turn in turns]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, **options)

    @cached_property
    def _lists(self) -> bool:
        """Whether the template reads contents only as lists of parts, and loses plain texts."""
        asked = {"role": "user", "content": QUESTION}

        def reads(turn: Turn) -> bool:
            with suppress(Exception):  # the error will come with the prompts
                options = {"add_generation_prompt": True, "strftime_now": self.now}
                return QUESTION in self.tokenizer.apply_chat_template([turn], tokenize=False, **options)
            return False

        return not reads(asked) and reads(_listed(asked))

    def _tokens(self, text: str) -> list[int]:
        """Return token ids of a piece of a template, without those of white space."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [token for token in ids if self.tokenizer.decode([token]).strip()]

    @cached_property
    def _brackets(self) -> tuple[int | None, int | None]:
        """Return [CLS] and [SEP] of a tokenizer that adds both; otherwise None for each."""
        ends = (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id)
        return ends if None not in ends and self.tokenizer("")["input_ids"] == [*ends] else (None, None)

    def _require_different(
        self, given: Sequence[tuple[Sequence[Message], str | None]], texts: Sequence[str]
    ) -> None:
        first: dict[str, Sequence[Message]] = {}
        for (messages, response), text in zip(given, texts, strict=True):
            if response is None:
                other = first.setdefault(text, messages)
                if other is not messages and _essences(other, self.system) != _essences(
                    messages, self.system
                ):
                    raise DataError(
                        f"model '{self.name}': prompts {prompt_id(other)} and {prompt_id(messages)} are different, but "
                        f"the chat template writes the same text for both; {self._remedy(plain(messages))}"
                    )

    def _where(self, messages: Sequence[Message]) -> str:
        return f"model '{self.name}', prompt {prompt_id(messages)}"

    def _remedy(self, turns: Sequence[Turn]) -> str:
        others = {"keep": "`system: merge` or `system: drop`", "drop": "`system: merge`"}
        if self.system in others and any(turn["role"] == "system" for turn in turns):
            return f"set {others[self.system]} of the model, or {self._another()}"
        return f"use other roles or texts in the prompts, or {self._another()}"

    def _another(self) -> str:
        return "give another template as `chat_template:` of the model"


def _turns(messages: Sequence[Message]) -> list[Turn]:
    """Return messages as plain data; `images` counts a message's images, if it has any."""
    shown = [{"images": len(message.images)} if message.images else {} for message in messages]
    return [turn | more for turn, more in zip(plain(messages), shown, strict=True)]


def _listed(turn: Turn) -> Turn:
    """Return a turn with its content as a list of parts, images first."""
    text = [{"type": "text", "text": turn["content"]}] if turn["content"] else []
    return {"role": turn["role"], "content": [{"type": "image"}] * turn.get("images", 0) + text}


def _images(messages: Sequence[Message]) -> list[bytes]:
    """Return the files of a conversation's images, in order."""
    return [b64decode(image.data) for message in messages for image in message.images or ()]


def with_system(turns: list[Turn], system: str) -> list[Turn]:
    """Return `turns` with system messages treated as `system` says: `keep`, `merge` or `drop`."""
    texts = [turn["content"] for turn in turns if turn["role"] == "system"]
    if system == "keep" or not texts:
        return turns
    turns = [turn for turn in turns if turn["role"] != "system"]
    if system == "merge":
        first = next((at for at, turn in enumerate(turns) if turn["role"] == "user"), None)
        asked = [] if first is None else [turns.pop(first)]
        joined = "\n\n".join([*texts, *(turn["content"] for turn in asked)])
        turns.insert(first or 0, {"role": "user", **dict(*asked), "content": joined})
    return turns


def begin_with(ids: list[int], token: int) -> None:
    """Insert `token` at the beginning, unless it is there already."""
    if ids[:1] != [token]:
        ids.insert(0, token)


def _lost(text: str, turns: Sequence[Turn]) -> Turn | None:
    """Return the first turn that is missing from `text`; None if all are there.

    The turns must appear in order, except system messages. A template may change white space, strip
    an assistant's reasoning, and write a tool's answer as JSON.
    """
    if _missing(text, turns) is None:
        return None
    text = _bare(SWITCH.sub("", text))
    contents = [_essence(turn["role"], turn["content"]) for turn in turns]
    written = [json.dumps(turn["content"], ensure_ascii=False)[1:-1] for turn in turns]
    forms = [
        turn | {"content": content if content in text else _bare(form)}
        for turn, content, form in zip(turns, contents, written, strict=True)
    ]
    at = _missing(text, forms)
    return None if at is None else turns[at]


def _missing(text: str, turns: Sequence[Turn]) -> int | None:
    end = 0
    for at, turn in enumerate(turns):
        content = turn["content"].strip()
        found = text.find(content, 0 if turn["role"] == "system" else end)
        if found < 0:
            return at
        if turn["role"] != "system":
            end = found + len(content)
    return None


def _bare(text: str) -> str:
    """Return the text without white space."""
    return "".join(text.split())


def _essence(role: str, content: str) -> str:
    """Return a message's text without anything that a template may strip."""
    content = content.rpartition(END_OF_REASONING)[2] if role == "assistant" else content
    return _bare(SWITCH.sub("", content))


def _essences(messages: Sequence[Message], system: str) -> list[tuple[str, str]]:
    """Return what distinguishes prompts.

    With `system: keep`, system messages are left out: a template may add one by default.
    """
    told = [each for each in messages if each.role != "system" or system != "keep"]
    essences = [(each.role, _essence(each.role, each.content)) for each in told]
    return [each for each in essences if each[1]]


def _line(error: Exception) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
