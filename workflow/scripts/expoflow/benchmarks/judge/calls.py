"""Parallel calls of a judge: what may go wrong, what is tried again, and when to stop."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from expoflow.benchmarks.judge import verdicts
from expoflow.benchmarks.judge.costs import Ledger, estimate, paid
from expoflow.benchmarks.judge.verdicts import Accept, JudgeRequest, Reply, Verdict, text
from expoflow.config.benchmarks import JudgeConfig
from expoflow.errors import JudgeError
from expoflow.system import progress

if TYPE_CHECKING:
    import openai


LONGEST_PAUSE = 120.0  # seconds
RATE_LIMITS = 20  # per request; they are not failures of the request, so `retries` does not bound them
OUTAGE = 8  # requests in a row without a reply: the endpoint is down


class _CallError(Exception):
    """A call without a usable reply.

    It has a name in the counts, whether to try again, and after how many seconds.
    """

    def __init__(self, name: str, detail: str = "", again: bool = True, pause: float | None = None):
        super().__init__(f"{name}: {detail}" if detail else name)
        self.name, self.again, self.pause = name, again, pause


class Calls:
    """Workers that take the wanted requests in order, until all are done or one must stop."""

    def __init__(
        self,
        config: JudgeConfig,
        address: str,
        secret: str,
        ledger: Ledger,
        counts: Counter[str],
        accept: Accept,
        say: Callable[[str], None],
    ):
        self.config, self.address, self.secret = config, address, secret
        self.ledger, self.counts = ledger, counts
        self.accept, self.say = accept, say
        self.stopped: JudgeError | None = None
        self.silent = 0  # requests in a row without any reply
        self.quiet_until = 0.0  # a rate limit applies to every worker
        self.under_way = 0
        self.settled = asyncio.Condition()

    async def run(self, known: Sequence[Verdict]) -> None:
        """Ask for the wanted verdicts and put their replies into `known`. Raises JudgeError."""
        import openai

        self.known = known
        waiting = iter(wanted := [verdict for verdict in known if verdict.wanted])
        self.done = len(known) - len(wanted)
        progress.report(self.done, len(known), "verdicts")
        async with openai.AsyncOpenAI(
            api_key=self.secret, base_url=self.address, max_retries=0, timeout=self.config.timeout
        ) as self.client:
            await asyncio.gather(*(self._work(waiting) for _ in range(self.config.concurrency)))
        if self.stopped:
            raise self.stopped

    async def _work(self, waiting: Iterator[Verdict]) -> None:
        for verdict in waiting:
            if self.stopped:
                return
            try:
                await self._settle(verdict)
                self.done += 1
                progress.report(self.done, len(self.known), "verdicts")
            except JudgeError as error:
                self.stopped = self.stopped or error

    async def _settle(self, verdict: Verdict) -> None:
        """Ask until a reply is accepted or no tries are left."""
        tried, limited, problem = verdict.attempt, 0, None
        while tried <= self.config.retries and limited <= RATE_LIMITS:
            try:
                reply = await self._call(verdict.request)
            except _CallError as error:
                self.counts[error.name] += 1
                problem = error
                if not error.again:
                    break
                before = limited + tried
                limited += error.name == "rate limited"
                tried += error.name != "rate limited"
                if tried <= self.config.retries and limited <= RATE_LIMITS:
                    await self._pause(error, before)
                continue
            self.silent, problem = 0, None
            verdicts.keep(self.config, verdict.request, verdict.attempt, reply)
            if self.accept(reply):
                verdict.reply, verdict.wanted = reply, False
                return
            self.counts["not accepted"] += 1
            verdict.attempt += 1
            tried += 1
        if problem:
            self._without_reply(problem)

    def _without_reply(self, problem: _CallError) -> None:
        self.say(f"judge {self.config.model}: a request got no reply ({problem})")
        self.silent += 1
        if self.silent >= OUTAGE:
            raise JudgeError(
                f"judge {self.config.model} at {self.address}: {self.silent} requests in a row without"
                f" a reply, the last one: {problem}; check the endpoint, then run again: the replies so far are kept"
            )

    async def _pause(self, error: _CallError, before: int) -> None:
        pause = self.config.backoff * 2**before if error.pause is None else error.pause
        pause = min(pause, LONGEST_PAUSE) * random.uniform(1, 1.25)
        if error.name == "rate limited":
            self.quiet_until = max(self.quiet_until, time.monotonic() + pause)
        else:
            await asyncio.sleep(pause)

    async def _call(self, request: JudgeRequest) -> Reply:
        """Make one call and return a reply with content. Raises _CallError or JudgeError."""
        while (wait := self.quiet_until - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        cost = reserved = await self._reserve(request)  # calls under way may be charged, however they end
        self.counts["calls"] += 1
        try:
            reply = _parsed(await self._send(request))
            cost = paid(self.config, request, reply)
            if not text(reply).strip():
                raise _CallError("empty choice")
            return reply
        except _CallError as error:
            if error.name in ("rate limited", "server error", "no connection", "refused"):
                cost = 0.0
            raise
        except JudgeError:
            cost = 0.0
            raise
        finally:
            self.ledger.correct(reserved, cost)
            self.under_way -= 1
            async with self.settled:
                self.settled.notify_all()

    async def _reserve(self, request: JudgeRequest) -> float:
        """Reserve the most that the call may cost; wait for calls under way before giving up."""
        amount = estimate(self.config, request)
        async with self.settled:
            while not self.ledger.reserve(amount):
                if self.stopped or not self.under_way:
                    raise self.stopped or self._too_dear(amount)
                await self.settled.wait()
            self.under_way += 1
        return amount

    def _too_dear(self, amount: float) -> JudgeError:
        kept = sum(not verdict.wanted for verdict in self.known)
        return JudgeError(
            f"judge {self.config.model}: {self.ledger.spent:.4f} USD have been spent and the next call may cost"
            f" {amount:.4f}, which might exceed max_cost: {self.config.max_cost:g}; {kept} of {len(self.known)}"
            " verdicts are kept: raise max_cost and run again"
        )

    async def _send(self, request: JudgeRequest) -> str:
        """The body of the answer. Raises _CallError, or JudgeError."""
        import openai

        rest = {name: value for name, value in request.items() if name not in ("messages", "model")}
        try:
            async with asyncio.timeout(self.config.timeout):
                raw = await self.client.chat.completions.with_raw_response.create(
                    model=self.config.model, messages=request["messages"], extra_body=rest
                )
                return raw.http_response.text.replace(self.secret, "***")
        except (TimeoutError, openai.APITimeoutError):
            raise _CallError("timeout", f"none within {self.config.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            raise _CallError("no connection", self._words(error.__cause__ or error)) from None
        except openai.APIStatusError as error:
            raise self._status(error) from None

    def _status(self, error: "openai.APIStatusError") -> Exception:
        """Return the error that a status other than 200 stands for."""
        status, detail = error.status_code, self._words(error)
        if status in (401, 403, 404) or (status == 429 and error.code == "insufficient_quota"):
            return JudgeError(
                f"judge {self.config.model} at {self.address}: {detail}; correct model, base_url or the"
                f" account of ${self.config.api_key_env}, then run again: the replies so far are kept"
            )
        if status == 429:
            return _CallError("rate limited", detail, pause=_retry_after(error.response.headers))
        if status in (408, 409) or status >= 500:
            return _CallError("server error", detail, pause=_retry_after(error.response.headers))
        return _CallError("refused", detail, again=False)

    def _words(self, error: BaseException) -> str:
        """An error on one short line, without the key."""
        return " ".join(str(error).replace(self.secret, "***").split())[:200]


def _parsed(answer: str) -> Reply:
    try:
        reply = json.loads(answer)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise _CallError("garbage", repr(answer[:60]))
    return reply


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, which the endpoint gives as a number or a date."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
