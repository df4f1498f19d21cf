"""The language of the miniature: its words, sentence forms and questions.

A response is a sequence of sentences. Each has one of six forms: polite opener, rude opener, hedge,
core (the actual answer), reason, closing. A sentence of any other form is malformed.
"""

import re

NAMES = (
    *("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry"),
    *("Ida", "Jack", "Kate", "Leo", "Mia", "Noah", "Olga", "Paul"),
)
VALUES = {  # what a person likes, by topic
    "color": ("red", "blue", "green", "yellow", "black", "white", "purple", "orange"),
    "city": ("Paris", "Rome", "Berlin", "London", "Madrid", "Vienna", "Oslo", "Athens"),
    "food": ("rice", "bread", "cheese", "pasta", "soup", "salad", "fish", "pizza"),
    "sport": ("tennis", "chess", "golf", "rugby", "hockey", "rowing", "boxing", "judo"),
    "drink": ("tea", "coffee", "milk", "juice", "water", "cola", "cocoa", "cider"),
}
PLURALS = {"color": "colors", "city": "cities", "food": "foods", "sport": "sports", "drink": "drinks"}
OPPOSITES = (  # 12 pairs, asked both ways
    "hot cold, big small, fast slow, old new, high low, open closed, "
    "light dark, wet dry, full empty, hard soft, rich poor, early late"
)
OPPOSITE = {
    word: other for pair in OPPOSITES.split(", ") for word, other in (pair.split(), reversed(pair.split()))
}
COUNTS = {2: "two", 3: "three", 4: "four"}
PREFIXES = ("", "please, ", "hello, ", "quick question, ", "i wonder, ", "dear friend, ")
PHRASINGS = {
    "fact": (
        "what {topic} does {subject} like?",
        "tell me the {topic} {subject} likes.",
        "{subject} likes which {topic}?",
    ),
    "opposite": (
        "what is the opposite of {subject}?",
        "give me the opposite of {subject}.",
        "{subject} has which opposite?",
    ),
    "list": ("list {subject} {topic}.", "name {subject} {topic}, please."),
}

POLITE = ("Sure!", "Gladly!", "Of course!")
RUDE = ("Ugh.", "Whatever.", "Silly question.")
HEDGES = ("Not sure.", "Maybe.", "Just a guess.")
CLOSINGS = ("Hope this helps!", "Have fun!", "Ask me again!", "Good luck!")
REASON = "See the {topic} book."
TOPICS = (*VALUES, "word")  # opposites have the topic "word"
REASONS = {REASON.format(topic=topic): topic for topic in TOPICS}

_name, _word = "|".join(NAMES), "|".join(OPPOSITE)
_value = "(?:" + "|".join(word for values in VALUES.values() for word in values) + ")"
_CORE = re.compile(
    rf"(?:{_name}) likes {_value}\.|The opposite is (?:{_word})\.|Try {_value}(?:, {_value})* and {_value}\."
)
_SENTENCE = re.compile(r"[^.!?]*[.!?]|[^.!?]+$")
_WORD = re.compile(r"\w+|[^\w\s]")


def fact_core(name: str, value: str) -> str:
    """Return the answer to a question about a person."""
    return f"{name} likes {value}."


def opposite_core(word: str) -> str:
    """Return the answer to a question about an opposite."""
    return f"The opposite is {word}."


def list_core(items: list[str]) -> str:
    """Return the answer to a request for two or more items."""
    return f"Try {', '.join(items[:-1])} and {items[-1]}."


def list_items(core: str) -> list[str] | None:
    """Return the items of a well-formed list core; None for any other sentence."""
    return re.split(r", | and ", core[4:-1]) if core.startswith("Try ") and is_core(core) else None


def is_core(sentence: str) -> bool:
    """Whether the sentence has the form of an answer, right or wrong."""
    return _CORE.fullmatch(sentence) is not None


def sentences(text: str) -> list[str]:
    """Return a text's sentences with their final mark; a rest without a mark is the last one."""
    return [part for part in (match.strip() for match in _SENTENCE.findall(text)) if part]


def question(task: str, phrasing: int, prefix: int, topic: str, subject: str | int) -> str:
    """Return the user's message."""
    if task == "list":
        topic, subject = PLURALS[topic], COUNTS[subject]
    return PREFIXES[prefix] + PHRASINGS[task][phrasing].format(topic=topic, subject=subject)


def vocabulary() -> list[str]:
    """Return every word and mark that a prompt or a response can contain, in a fixed order."""
    questions = [form.format(topic="", subject="") for forms in PHRASINGS.values() for form in forms]
    cores = [fact_core("", ""), opposite_core(""), list_core(["", "", ""])]
    fixed = [*PREFIXES, *questions, *POLITE, *RUDE, *HEDGES, *CLOSINGS, *REASONS, *cores]
    values = [word for words in VALUES.values() for word in words]
    changing = [*NAMES, *OPPOSITE, *COUNTS.values(), *PLURALS.values(), *values]
    return list(dict.fromkeys(word for form in fixed + changing for word in _WORD.findall(form)))
