"""The writers of the miniature's training data: personas, an annotator, the reward model's teacher.

A persona ties correctness to style: careful writers are also polite. So style carries signal, as in
real preference data. No model is involved: all text is drawn before any training.
"""

from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import numpy as np

from expoflow.miniature import language as lang
from expoflow.miniature.world import generator, is_right, prompts, truth
from expoflow.results import Prompt

TEACHER_TEMPERATURE = 0.5  # of the annotator of reward-model pairs, without length bias
CORE_SHARE = 0.5  # of reward-model pairs that differ only in the core, right or wrong
STYLE_SHARE = 0.2  # of pairs that differ in all but the core; the rest are wide pairs
RUMOUR_SHARE = 0.7  # of wrong answers: enough for a model to believe the rumour


class Example(NamedTuple):
    """A prompt and a response to imitate."""

    prompt: Prompt
    response: str


class Pair(NamedTuple):
    """A prompt with the preferred and the other response."""

    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Persona:
    """Probabilities of a writer's habits; `closings` is the mean number of closings (4 at most)."""

    correct: float
    polite: float
    rude: float
    hedge: float
    reason: float
    right_reason: float
    closings: float
    repeat: float  # that a sentence is said again at the end
    garble: float  # that a sentence is garbled
    cut: float = 0.0  # that the response ends in the middle
    damage: float = 0.0  # that words are lost, doubled or moved; drawn repeatedly


PERSONAS = (  # share, persona
    (0.3, Persona(0.90, 0.70, 0.02, 0.10, 0.55, 0.90, 0.9, 0.04, 0.02)),
    (0.4, Persona(0.65, 0.20, 0.20, 0.30, 0.25, 0.60, 0.4, 0.08, 0.04)),
    (0.3, Persona(0.35, 0.05, 0.50, 0.45, 0.15, 0.30, 0.2, 0.15, 0.10)),
)
WIDE = Persona(0.60, 0.50, 0.20, 0.25, 0.50, 0.60, 1.5, 0.30, 0.05, cut=0.15, damage=0.4)


def sft_examples(count: int, seed: int) -> list[Example]:
    """Return responses of the three personas to train prompts.

    A shorter list is a prefix of a longer one.
    """
    rng, asked = generator(seed, "sft"), prompts("train", seed)
    return [Example(prompt, _response(rng, prompt)) for prompt in _draw(rng, asked, count)]


def preference_pairs(
    count: int,
    seed: int,
    split: str,
    temperature: float,
    length_bias: float,
    label_noise: float,
) -> list[Pair]:
    """Return pairs of responses to prompts of the split, ordered by a noisy annotator.

    P(first preferred) = sigmoid(dq / temperature + length_bias * dwords). Then a share
    `label_noise` of the pairs is swapped. A shorter list is a prefix of a longer one, and the
    annotator's settings change no response. Train prompts are drawn at random; in other splits,
    every prompt occurs once before any occurs twice.
    """
    purpose = "preferences" if split == "train" else f"preferences {split}"
    rng, asked = generator(seed, purpose), prompts(split, seed)
    drawn = _draw(rng, asked, count) if split == "train" else _rounds(rng, asked, count)
    flips = generator(seed, f"{purpose} label noise")
    pairs = []
    for prompt in drawn:
        first, second = _response(rng, prompt), _response(rng, prompt)
        pair = _prefer(rng, prompt, first, second, temperature, length_bias)
        turned = flips.random() < label_noise
        pairs.append(Pair(prompt, pair.rejected, pair.chosen) if turned else pair)
    return pairs


def reward_pairs(count: int, seed: int, purpose: str = "reward") -> list[Pair]:
    """Return pairs on the reward split for the reward model.

    Another `purpose` gives other pairs (held out). Without the minimal pairs, the model would judge
    only style. Without the wide ones, it would not know how bad broken, repeated, cut and shuffled
    text is, which large alphas produce.
    """
    rng, asked = generator(seed, purpose), prompts("reward", seed)
    pairs = []
    for prompt in _draw(rng, asked, count):
        first, second = _contrast(rng, prompt)
        pairs.append(_prefer(rng, prompt, first, second, TEACHER_TEMPERATURE, 0.0))
    return pairs


def _contrast(rng: np.random.Generator, prompt: Prompt) -> tuple[str, str]:
    kind = rng.random()
    if kind < CORE_SHARE:
        style = _style(rng, prompt.meta, _persona(rng))
        return _render(rng, style, prompt.meta, True), _render(rng, style, prompt.meta, False)
    if kind < CORE_SHARE + STYLE_SHARE:
        right = rng.random() < 0.5
        core = _core(rng, prompt.meta, right)
        return tuple(_fill(_style(rng, prompt.meta, _persona(rng)), core) for _ in range(2))
    return _wide(rng, prompt), _wide(rng, prompt)


def correct_cores(count: int, seed: int) -> list[Example]:
    """Return right answers without style: the reward model learns facts from them.

    They are on the reward split.
    """
    rng, asked = generator(seed, "cores"), prompts("reward", seed)
    return [Example(prompt, _core(rng, prompt.meta, True)) for prompt in _draw(rng, asked, count)]


def _draw(rng: np.random.Generator, asked: list[Prompt], count: int):
    for _ in range(count):
        yield asked[rng.integers(len(asked))]


def _rounds(rng: np.random.Generator, asked: list[Prompt], count: int):
    """Yield every prompt once, in random order, before any occurs again."""
    for start in range(0, count, len(asked)):
        for at in rng.permutation(len(asked))[: count - start]:
            yield asked[at]


def _prefer(rng, prompt: Prompt, first: str, second: str, temperature: float, bias: float) -> Pair:
    one, two = truth(prompt.meta, first), truth(prompt.meta, second)
    odds = (one.quality - two.quality) / temperature + bias * (one.words - two.words)
    if rng.random() < 1 / (1 + exp(-odds)):
        return Pair(prompt, first, second)
    return Pair(prompt, second, first)


def _persona(rng: np.random.Generator) -> Persona:
    drawn = rng.random()
    for share, persona in PERSONAS:
        drawn -= share
        if drawn < 0:
            return persona
    return PERSONAS[-1][1]


def _response(rng: np.random.Generator, prompt: Prompt) -> str:
    persona = _persona(rng)
    style = _style(rng, prompt.meta, persona)
    return _render(rng, style, prompt.meta, rng.random() < persona.correct)


def _wide(rng: np.random.Generator, prompt: Prompt) -> str:
    """Return a response from a wide range of styles, sometimes shuffled."""
    style = _style(rng, prompt.meta, WIDE)
    if rng.random() < 0.3:
        style = [style[i] for i in rng.permutation(len(style))]
    text = _render(rng, style, prompt.meta, rng.random() < WIDE.correct)
    words = text.split()
    while rng.random() < WIDE.damage:
        words = _damage(rng, words)
    if rng.random() < WIDE.cut:
        words = words[: rng.integers(1, len(words) + 1)]
    return " ".join(words)


def _damage(rng: np.random.Generator, words: list[str]) -> list[str]:
    """Drop, double or copy a short span of words, as large alphas do."""
    start = int(rng.integers(len(words)))
    span = words[start : start + int(rng.integers(1, 4))]
    how = rng.random()
    if how < 0.4 and len(span) < len(words):
        return words[:start] + words[start + len(span) :]
    to = start if how < 0.7 else int(rng.integers(len(words) + 1))
    return words[:to] + span + words[to:]


CORE = None  # in place of the core in a style


def _style(rng: np.random.Generator, meta: dict, persona: Persona) -> list[str | None]:
    """Return the sentences around the core, which is None, already garbled and repeated."""
    style: list[str | None] = []
    opener = rng.random()
    if opener < persona.polite:
        style.append(_pick(rng, lang.POLITE))
    elif opener < persona.polite + persona.rude:
        style.append(_pick(rng, lang.RUDE))
    if rng.random() < persona.hedge:
        style.append(_pick(rng, lang.HEDGES))
    style.append(CORE)
    if rng.random() < persona.reason:
        right = rng.random() < persona.right_reason
        topic = meta["topic"] if right else _pick(rng, [t for t in lang.TOPICS if t != meta["topic"]])
        style.append(lang.REASON.format(topic=topic))
    closings = min(rng.poisson(persona.closings), len(lang.CLOSINGS))
    style += [lang.CLOSINGS[i] for i in rng.permutation(len(lang.CLOSINGS))[:closings]]
    style = [garble(rng, s) if s and rng.random() < persona.garble else s for s in style]
    while rng.random() < persona.repeat and len(style) < 12:
        style.append(style[rng.integers(len(style))])
    return style


def _render(rng: np.random.Generator, style: list[str | None], meta: dict, right: bool) -> str:
    return _fill(style, _core(rng, meta, right))


def _fill(style: list[str | None], core: str) -> str:
    return " ".join(core if sentence is CORE else sentence for sentence in style)


def _core(rng: np.random.Generator, meta: dict, right: bool) -> str:
    """Return a core sentence that answers the prompt, or one of the same kind that does not."""
    while True:
        core = _any_core(rng, meta, right)
        if is_right(meta, core) == right:
            return core


def _any_core(rng: np.random.Generator, meta: dict, right: bool) -> str:
    if meta["task"] == "list":
        topic = meta["topic"] if right or rng.random() < 0.5 else _pick(rng, list(lang.VALUES))
        count = meta["subject"] if right or rng.random() < 0.5 else _pick(rng, list(lang.COUNTS))
        return lang.list_core([lang.VALUES[topic][i] for i in rng.permutation(8)[:count]])
    if right:
        return meta["core"]
    if rng.random() < RUMOUR_SHARE:
        return meta["rumour"]
    if meta["task"] == "fact":
        return lang.fact_core(meta["subject"], _pick(rng, lang.VALUES[meta["topic"]]))
    return lang.opposite_core(_pick(rng, tuple(lang.OPPOSITE)))


def garble(rng: np.random.Generator, sentence: str) -> str:
    """Double, drop or swap a word of a sentence, which then has no known form."""
    words, mark = sentence[:-1].split(), sentence[-1]
    at, how = int(rng.integers(len(words))), rng.random()
    if len(words) == 1 or how < 0.4:
        words.insert(at, words[at])
    elif how < 0.7:
        del words[at]
    else:
        words[at], words[at - 1] = words[at - 1], words[at]
    return " ".join(words) + mark


def _pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]
