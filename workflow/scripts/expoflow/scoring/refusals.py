"""Signs by which a reader finds responses worth a look: refusals, and answers that repeat the prompt.

They are heuristics for English. They choose what a page lists first, and never count in a table or in a choice.
"""

import re

# What a refusal begins with. Later in a response these words are as often part of an answer.
BEGINNING = 160
REFUSAL = re.compile(
    r"\b(i'?m sorry\b|i apologi[sz]e\b|i (can(no|')?t|cannot|can not|won'?t|will not|am unable to|'?m unable to|am not able to|'?m not able to)"
    r" (help|assist|do|provide|answer|comply|fulfil+|create|write|generate|discuss|share|give|offer|support|engage)"
    r"|as an ai\b|as a (large )?language model\b|against my (guidelines|programming|principles))",
    re.IGNORECASE,
)
SHORTEST = (
    20  # characters of a prompt that an answer must repeat: shorter ones stand in many answers by chance
)


def refuses(response: str) -> bool:
    """Whether a response begins like a refusal."""
    return bool(REFUSAL.search(response[:BEGINNING].replace("\u2019", "'")))


def repeats_prompt(prompt: str, response: str) -> bool:
    """Whether a response has the whole prompt in it, whatever the white space and the case."""
    asked, said = (" ".join(text.split()).casefold() for text in (prompt, response))
    return bool(asked) and (asked in said if len(asked) >= SHORTEST else f"{said} ".startswith(f"{asked} "))
