"""A tiny world with facts, prompts in four disjoint splits, and the true quality of every response.

The world depends on the seed: who likes what, and which prompts are in which split. A prompt's
`meta` has all that `truth` needs, so the truth about a response is known without the seed.
"""

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from expoflow.data.prompts import prompt_id
from expoflow.miniature import language as lang
from expoflow.results import Message, Prompt

SPLITS = {"dev": 200, "test": 300, "reward": 400, "train": None}  # None: all the rest

WEIGHTS = {  # true quality q = sum of weight * component
    "correct": 2.5, "polite": 1.0, "right_reason": 1.0, "wrong_reason": -0.5, "rude": -1.0, "hedge": -0.75,
    "repeats": -0.6, "malformed": -1.0, "extra_closings": -0.25, "extra_cores": -0.5, "unfinished": -1.5,
}  # fmt: skip


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return random numbers for one purpose, the same on every machine and in every process."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


@cache
def facts(seed: int) -> dict[tuple[str, str], str]:
    """Return the 80 facts: (topic, name) -> what that person likes."""
    rng = generator(seed, "facts")
    return {
        (topic, name): values[rng.integers(len(values))]
        for topic, values in lang.VALUES.items()
        for name in lang.NAMES
    }


def prompts(split: str, seed: int) -> list[Prompt]:
    """Return the prompts of a split.

    dev has 200 prompts, test 300, reward (for the reward model) 400, and train the rest. Splits are
    disjoint in prompts but not in facts: every split asks about the facts of train in other
    phrasings.
    """
    start = 0
    for name, size in SPLITS.items():
        stop = None if size is None else start + size
        if name == split:
            return list(_all_prompts(seed)[start:stop])
        start = stop or 0
    raise ValueError(f"no split {split!r} in the miniature; use one of {', '.join(SPLITS)}")


@cache
def _all_prompts(seed: int) -> tuple[Prompt, ...]:
    rng = generator(seed, "splits")
    questions = [rng.permutation(_askings(meta)).tolist() for meta in _metas(seed)]
    order = rng.permutation(len(questions))
    metas = _metas(seed)
    # Each round has every question once, so every question is spread evenly over the splits.
    rounds = range(max(map(len, questions)))
    return tuple(_prompt(metas[q], *questions[q][k]) for k in rounds for q in order if k < len(questions[q]))


def _metas(seed: int) -> list[dict]:
    """Return all questions: 80 facts, 24 opposites, 15 lists.

    `core` is the right answer; `rumour` is a wrong one that is common. Lists have many right
    answers.
    """
    rng = generator(seed, "rumours")
    rows = []
    for (topic, name), value in facts(seed).items():
        rumour = lang.fact_core(name, _other(rng, lang.VALUES[topic], value))
        row = {"task": "fact", "topic": topic, "subject": name}
        rows.append({**row, "core": lang.fact_core(name, value), "rumour": rumour})
    for word, opposite in lang.OPPOSITE.items():
        rumour = lang.opposite_core(_other(rng, list(lang.OPPOSITE), opposite))
        row = {"task": "opposite", "topic": "word", "subject": word}
        rows.append({**row, "core": lang.opposite_core(opposite), "rumour": rumour})
    rows += [{"task": "list", "topic": topic, "subject": n} for topic in lang.VALUES for n in lang.COUNTS]
    return rows


def _other(rng: np.random.Generator, options: list[str], but: str) -> str:
    rest = [option for option in options if option != but]
    return rest[rng.integers(len(rest))]


def _askings(meta: dict) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(lang.PHRASINGS[meta["task"]])) for j in range(len(lang.PREFIXES))]


def _prompt(meta: dict, phrasing: int, prefix: int) -> Prompt:
    text = lang.question(meta["task"], phrasing, prefix, meta["topic"], meta["subject"])
    messages = [Message(role="user", content=text)]
    return Prompt(prompt_id=prompt_id(messages), messages=messages, meta=meta)


def is_right(meta: dict, core: str) -> bool:
    """Whether a core sentence answers the prompt."""
    if meta["task"] != "list":
        return core == meta["core"]
    items = lang.list_items(core) or []
    return len(set(items)) == len(items) == meta["subject"] and set(items) <= set(lang.VALUES[meta["topic"]])


@dataclass(frozen=True)
class Truth:
    """True quality of a response and its components; `quality` is the sum over WEIGHTS."""

    quality: float
    correct: bool  # the first core sentence answers the prompt
    polite: bool
    rude: bool
    hedge: bool
    right_reason: bool
    wrong_reason: bool
    closings: int
    extra_closings: int  # beyond the first
    extra_cores: int  # other cores after the first
    repeats: int  # sentences said before
    malformed: int  # sentences of no known form; an empty response counts as one
    unfinished: bool
    words: int


def truth(meta: dict, response: str, finished: bool = True) -> Truth:
    """Return the truth about any string as a response to the prompt with this `meta`.

    `finished` says whether generation ended by itself and not at the token limit.
    """
    said = lang.sentences(response)
    distinct = list(dict.fromkeys(said))
    cores = [sentence for sentence in distinct if lang.is_core(sentence)]
    reasons = [lang.REASONS[sentence] for sentence in distinct if sentence in lang.REASONS]
    closings = sum(sentence in lang.CLOSINGS for sentence in distinct)
    openers = sum(sentence in lang.POLITE + lang.RUDE + lang.HEDGES for sentence in distinct)
    parts = {
        "correct": bool(cores) and is_right(meta, cores[0]),
        "polite": any(sentence in lang.POLITE for sentence in distinct),
        "rude": any(sentence in lang.RUDE for sentence in distinct),
        "hedge": any(sentence in lang.HEDGES for sentence in distinct),
        "right_reason": meta["topic"] in reasons,
        "wrong_reason": any(reason != meta["topic"] for reason in reasons),
        "extra_closings": max(0, closings - 1),
        "extra_cores": max(0, len(cores) - 1),
        "repeats": len(said) - len(distinct),
        "malformed": len(distinct) - len(cores) - len(reasons) - closings - openers if said else 1,
        "unfinished": not finished,
    }
    quality = sum(weight * parts[name] for name, weight in WEIGHTS.items())
    return Truth(quality=quality, closings=closings, words=len(response.split()), **parts)
