"""Replies of a judge in the store, by content: nothing is paid for twice."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expoflow import store
from expoflow.config.benchmarks import JudgeConfig
from expoflow.files import hashing
from expoflow.files.records import write_json

JudgeRequest = Mapping[str, Any]
Reply = dict[str, Any]
Accept = Callable[[Reply], bool]


def text(reply: Mapping[str, Any]) -> str:
    """The text of a reply's first choice, or the arguments of its tool call, or ""."""
    try:
        message = reply["choices"][0]["message"]
        calls = message.get("tool_calls")
        return (calls[0]["function"]["arguments"] if calls else message["content"]) or ""
    except (LookupError, TypeError, AttributeError):
        return ""


@dataclass
class Verdict:
    """The state of a request: its accepted reply, and the number of the next one.

    `attempt` earlier replies were not accepted; they stay in the store. `wanted` says whether to
    ask (again).
    """

    request: JudgeRequest
    reply: Reply | None
    attempt: int
    wanted: bool


def body(config: JudgeConfig, request: JudgeRequest) -> dict[str, Any]:
    """The request that is sent."""
    return {**request, "model": config.model}


def path(config: JudgeConfig, request: JudgeRequest, attempt: int = 0) -> Path:
    """The path of reply `attempt` to a request in the store."""
    key = hashing.json_digest([config.base_url, body(config, request), attempt])
    return store.place("verdicts", key)


def keep(config: JudgeConfig, request: JudgeRequest, attempt: int, reply: Reply) -> None:
    """Put a reply into the store, with the request that it belongs to."""
    asked = {"base_url": config.base_url, "request": body(config, request), "attempt": attempt}
    write_json(path(config, request, attempt), {**asked, "reply": reply})


def read(config: JudgeConfig, request: JudgeRequest, accept: Accept) -> Verdict:
    """Read from the store the first reply to a request that has content and is accepted."""
    for attempt in range(1 + config.retries):
        try:
            kept = json.loads(path(config, request, attempt).read_text(encoding="utf-8"))["reply"]
        except (OSError, ValueError, LookupError, TypeError):
            return Verdict(request, None, attempt, wanted=True)
        if accept(kept):
            return Verdict(request, kept, attempt, wanted=False)
    return Verdict(request, None, 1 + config.retries, wanted=False)
