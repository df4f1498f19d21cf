"""The client of OpenAI-compatible judges: requests in, replies out, each paid for once.

    judge = Judge(config, ledger=Path("results/logs/judge/mt_bench.json"), say=say)
    replies = judge.ask(requests, accept=lambda reply: score(text(reply)) is not None)

A request is the JSON body of a chat completion without its model: {"messages": [{"role",
"content"}, ...], "temperature": 0, "max_tokens": 2048, "logprobs": True, ...}. A reply is the JSON
of the completion as the endpoint sent it; `text(reply)` is its content. Equal requests are asked
once. A missing reply is None.

Every reply is stored as soon as it arrives (`verdicts/`, by endpoint, model and request). Asking
again therefore costs nothing, even after kill -9 and even if other requests failed.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expoflow.benchmarks.judge import verdicts
from expoflow.benchmarks.judge.calls import Calls
from expoflow.benchmarks.judge.costs import Ledger, estimate, paid, prompt_tokens, reply_tokens
from expoflow.benchmarks.judge.verdicts import Accept, JudgeRequest, Reply, Verdict
from expoflow.config.benchmarks import JudgeConfig
from expoflow.errors import JudgeError


@dataclass(frozen=True)
class JudgeBill:
    """The bill before asking: `calls` to make, `kept` verdicts, tokens, and the most USD."""

    model: str
    calls: int
    kept: int
    prompt_tokens: int
    reply_tokens: int
    cost: float | None

    def __str__(self) -> str:
        if not self.calls:
            return f"judge {self.model}: 0 calls, {self.kept} verdicts are kept"
        cost = "no price in the config" if self.cost is None else f"at most {self.cost:.2f} USD"
        return (
            f"judge {self.model}: {self.calls} calls, {self.kept} verdicts are kept; about {self.prompt_tokens}"
            f" tokens of prompts, at most {self.reply_tokens} of replies, {cost}"
        )


class Judge:
    """A client that asks an OpenAI-compatible endpoint.

    `ledger` is a file in which all jobs of a benchmark count their costs against `max_cost`.
    Without it this object counts only its own. `counts` has the number of calls, and of each kind
    of failure: "rate limited", "server error", "timeout", "no connection", "garbage" (not a JSON
    object), "empty choice", "refused" (a request that the endpoint does not accept), "not
    accepted". `address` is where the endpoint is, if not at config.base_url. Replies are stored
    under config.base_url in either case.
    """

    def __init__(
        self,
        config: JudgeConfig,
        ledger: Path | None = None,
        say: Callable[[str], None] = print,
        address: str | None = None,
    ):
        self.config, self.say = config, say
        self.address = address or config.base_url
        self.ledger = Ledger(ledger, config.max_cost)
        self.counts: Counter[str] = Counter()

    def bill(self, requests: Iterable[JudgeRequest], accept: Accept = bool) -> JudgeBill:
        """What `ask` would cost now. It makes no call."""
        return self._bill(self._known(requests, accept).values())

    def ask(self, requests: Sequence[JudgeRequest], accept: Accept = bool) -> list[Reply | None]:
        """The reply to every request, in order; None if no reply with content was accepted.

        A reply that `accept` refuses (an unreadable verdict) is also kept and paid for. Its request
        is asked again, at most `config.retries` times. The bill is printed before the first call.
        Raises JudgeError if the key is missing or refused, if the endpoint does not answer, or if
        the next call might exceed `max_cost`. All replies paid for until then are kept.
        """
        known = self._known(requests, accept)
        bill = self._bill(known.values())
        self.say(str(bill))
        if bill.calls:
            asking = Calls(self.config, self.address, self.key(), self.ledger, self.counts, accept, self.say)
            try:
                asyncio.run(asking.run(list(known.values())))
            finally:
                self._say_counts(known.values())
        return [known[_key(request)].reply for request in requests]

    def summary(self, requests: Sequence[JudgeRequest], replies: Sequence[Reply | None]) -> dict[str, Any]:
        """For provenance: the judge, number of judgments, cost in USD, and this job's counts."""
        pairs = [(request, reply) for request, reply in zip(requests, replies, strict=True) if reply]
        cost = sum(paid(self.config, request, reply) for request, reply in pairs)
        return {
            **json.loads(self.config.identity()),
            "judgments": len(pairs),
            "missing": len(requests) - len(pairs),
            "cost": round(cost, 6) if self.config.model in self.config.prices else None,
            "counts": dict(self.counts),
        }

    def key(self) -> str:
        """The API key from the environment variable that the config names."""
        name = self.config.api_key_env
        if name and not os.environ.get(name):
            raise JudgeError(
                f"judge {self.config.model}: ${name} is not set; export {name}=KEY, then run again"
            )
        return os.environ[name] if name else "none"

    def _known(self, requests: Iterable[JudgeRequest], accept: Accept) -> dict[str, Verdict]:
        unique = {_key(request): request for request in requests}
        return {key: verdicts.read(self.config, request, accept) for key, request in unique.items()}

    def _bill(self, known: Iterable[Verdict]) -> JudgeBill:
        known = list(known)
        wanted = [verdict.request for verdict in known if verdict.wanted]
        priced = self.config.model in self.config.prices
        return JudgeBill(
            model=self.config.model,
            calls=len(wanted),
            kept=len(known) - len(wanted),
            prompt_tokens=sum(map(prompt_tokens, wanted)),
            reply_tokens=sum(map(reply_tokens, wanted)),
            cost=sum(estimate(self.config, request) for request in wanted) if priced else None,
        )

    def _say_counts(self, known: Iterable[Verdict]) -> None:
        known = list(known)
        words = [f"judge {self.config.model}: {self.counts['calls']} calls"]
        words += [f"{name} {count}" for name, count in self.counts.items() if name != "calls"]
        if missing := sum(verdict.reply is None for verdict in known):
            words.append(f"{missing} of {len(known)} verdicts are missing")
        self.say("; ".join(words))


def _key(request: JudgeRequest) -> str:
    return json.dumps(request, sort_keys=True)
