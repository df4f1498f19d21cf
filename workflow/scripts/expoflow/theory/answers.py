"""The side of a "theory" task that holds the model, in an engine host or in the job itself."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from expoflow.engines import tokenizer
from expoflow.engines.answering import generated
from expoflow.engines.chat import Chat
from expoflow.engines.generate import request_seed
from expoflow.engines.model import Request
from expoflow.engines.transformers import BROKEN
from expoflow.errors import CheckpointError, DataError
from expoflow.hosts.task import Held
from expoflow.theory.corners import Corners, Row
from expoflow.theory.question import TheoryTask, key

Rows = Iterator[list[dict[str, Any]]]


def answer(held: Held, arguments: dict[str, Any]) -> Rows:
    """Run a `TheoryTask`.

    Yields {margin: point, logps: [chosen, rejected] of every preference}, {margin_slopes: point,
    logps: their slopes}, and {response: point, slope, generation} for every response. Points are
    indices into the lists of the task.
    """
    ask = TheoryTask.model_validate(arguments)
    corners: Corners = held.get("theory", key(ask), lambda: Corners(ask.model, ask.corners))
    yield from _margins(corners, ask)
    yield from _responses(corners, ask)


def _margins(corners: Corners, ask: TheoryTask) -> Rows:
    rows = _conversations(corners, ask) if ask.margins else []
    for number, shares in enumerate(ask.margins):
        corners.at(*shares)
        logps = dict(each for some in corners.engine.logps(rows) for each in some)
        for at, logp in sorted(logps.items()):
            if not math.isfinite(logp):
                raise _not_finite(
                    ask, shares, f"the log-probability of a response to preference {at // 2 + 1} is"
                )
        yield [{"margin": number, "logps": _in_order(logps)}]
        if number == 0 and ask.towards:
            slopes = dict(each for some in corners.slopes(rows, ask.towards) for each in some)
            yield [{"margin_slopes": number, "logps": _in_order(slopes)}]


def _in_order(values: dict[int, float]) -> list[list[float]]:
    """Return values by index as pairs: chosen, rejected."""
    return [[values[at], values[at + 1]] for at in range(0, len(values), 2)]


def _not_finite(ask: TheoryTask, shares: Sequence[float], what: str) -> CheckpointError:
    """Return the error for weights made of shares of the corners, if `what` is NaN or infinite."""
    corners = (
        f"{share:g} x {each.sft if each.alpha == -1 else each.aligned}"
        for share, each in zip(shares, ask.corners, strict=True)
    )
    return CheckpointError(
        f"weights {' + '.join(corners)}: {what} NaN or infinite; take smaller alphas, or other models if these hold NaN or Inf"
    )


def _conversations(corners: Corners, ask: TheoryTask) -> list[Row]:
    """Return (prompt, response) token ids of every preference's chosen, then rejected response.

    As in training, a response includes what the chat template writes after it.
    """
    chat, context = Chat.of(corners.engine.tokenizer, ask.model), corners.engine.context
    asked = chat.all_token_ids((each.messages, None) for each in ask.preferences)
    rows = []
    for prompt, each in zip(asked, ask.preferences, strict=True):
        both = [(each.messages, each.chosen), (each.messages, each.rejected)]
        for ids in chat.all_token_ids(both):
            ids = ids[:context]
            start = next((at for at, pair in enumerate(zip(prompt, ids)) if pair[0] != pair[1]), len(prompt))  # noqa: B905
            if start >= len(ids):
                raise DataError(
                    f"a preference's prompt leaves no room in the context of {context} tokens; remove it"
                )
            rows.append((ids[:start], ids[start:]))
    return rows


def _responses(corners: Corners, ask: TheoryTask) -> Rows:
    engine, config = corners.engine, ask.config
    chat = Chat.of(engine.tokenizer, ask.model)
    prompts = chat.all_token_ids((each.messages, None) for each in ask.prompts)
    for prompt, ids in zip(ask.prompts, prompts, strict=True):
        if len(ids) >= engine.context:
            raise DataError(
                f"prompt {prompt.prompt_id} has {len(ids)} tokens, the model's context is {engine.context}; remove it"
            )
    asked = [
        (prompt, ids, sample)
        for prompt, ids in zip(ask.prompts, prompts, strict=True)
        for sample in range(config.samples)
    ]
    requests = [
        Request(ids, request_seed(config.seed, sample, prompt.prompt_id), prompt.prompt_id)
        for prompt, ids, sample in asked
    ]
    for number, shares in enumerate(ask.responses):
        corners.at(*shares)
        written: dict[int, list[int]] = {}
        for finished in engine.written(requests, config):
            for at, tokens in finished:
                if tokens[-1] == BROKEN:
                    what = f"the logits for token {len(tokens)} of the response to prompt {requests[at].prompt_id} are"
                    raise _not_finite(ask, shares, what)
            written |= dict(finished)
            yield []
        slopes: dict[int, float] = {}
        if number == 0 and ask.towards:
            rows = [(request.token_ids, written[at]) for at, request in enumerate(requests)]
            slopes = dict(each for some in corners.slopes(rows, ask.towards) for each in some)
        found = []
        for at, (prompt, _, sample) in enumerate(asked):
            said = tokenizer.completion(engine.tokenizer, written[at], engine.stop)
            generation = generated(engine, prompt.prompt_id, sample, requests[at], said)
            found.append(
                {
                    "response": number,
                    "slope": slopes.get(at),
                    "generation": generation.model_dump(mode="json"),
                }
            )
        yield found
