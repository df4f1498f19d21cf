"""Costs of a judge's calls: estimates from requests, prices from replies, and a ledger."""

import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expoflow.config.benchmarks import JudgeConfig

REPLY_TOKENS = 4096  # tokens of a reply if the request sets no limit
MESSAGE_TOKENS = 8  # tokens of a message beside its text: role and markers
WIDTH = 64  # bytes of a ledger
ROUNDING = 1e-9  # USD


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """Tokens of a request's messages: one per 3 ASCII characters, 2 per other character.

    This is a high estimate. Real tokenizers need one token per 4 to 5 letters of English, but they
    would have to be downloaded.
    """
    texts = [message["content"] for message in request["messages"]]
    ascii_ = sum(sum(map(str.isascii, text)) for text in texts)
    other = sum(map(len, texts)) - ascii_
    return math.ceil(ascii_ / 3) + 2 * other + MESSAGE_TOKENS * len(texts)


def reply_tokens(request: Mapping[str, Any]) -> int:
    """The most tokens that the reply to a request may have."""
    return request.get("max_completion_tokens") or request.get("max_tokens") or REPLY_TOKENS


def price(config: JudgeConfig, prompt: int, reply: int) -> float:
    """The price in USD of a call with these tokens; 0 if the config has no price for the model."""
    if not (per_million := config.prices.get(config.model)):
        return 0.0
    return (prompt * per_million.input + reply * per_million.output) / 1e6


def estimate(config: JudgeConfig, request: Mapping[str, Any]) -> float:
    """The most that a call may cost, in USD: a long prompt, and a reply up to its limit."""
    return price(config, prompt_tokens(request), reply_tokens(request))


def paid(config: JudgeConfig, request: Mapping[str, Any], reply: Mapping[str, Any]) -> float:
    """The cost of a reply in USD, from its `usage`; the estimate if it has none."""
    usage = reply.get("usage")
    try:
        return price(config, int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    except (TypeError, KeyError, ValueError):
        return estimate(config, request)


class Ledger:
    """The USD spent so far, under a ceiling, in a file that several jobs share or in memory.

    The most that a call may cost is reserved before the call, and corrected to the real cost after
    it. The sum therefore never exceeds `ceiling`. If a process is killed, its calls under way stay
    counted as paid.
    """

    def __init__(self, path: Path | None, ceiling: float | None):
        self.ceiling = math.inf if ceiling is None else ceiling
        self.path, self._spent = path, 0.0

    @property
    def spent(self) -> float:
        """USD spent and reserved."""
        return self._change(0.0)

    def reserve(self, amount: float) -> bool:
        """Reserve `amount` if it stays within the ceiling; return whether it does."""
        before = self._change(amount, self.ceiling)
        return before + amount <= self.ceiling + ROUNDING

    def correct(self, reserved: float, cost: float) -> None:
        """Correct a call that had `reserved` to its real `cost`."""
        self._change(cost - reserved)

    def _change(self, amount: float, ceiling: float = math.inf) -> float:
        """Add `amount` unless that would exceed `ceiling`; return the sum before."""
        if self.path is None:
            before, self._spent = self._spent, _sum(self._spent, amount, ceiling)
            return before
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = float(json.loads(os.pread(file, WIDTH, 0) or '{"spent": 0}')["spent"])
            # A single write of constant length: a process that is killed leaves the old sum or the
            # new one.
            after = json.dumps({"spent": round(_sum(before, amount, ceiling), 9)})
            os.pwrite(file, after.ljust(WIDTH - 1).encode() + b"\n", 0)
            return before
        finally:
            os.close(file)


def _sum(before: float, amount: float, ceiling: float) -> float:
    return before + amount if before + amount <= ceiling + ROUNDING else before
