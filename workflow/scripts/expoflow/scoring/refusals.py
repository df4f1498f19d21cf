"""Signs of responses that a reader should look at: refusals, and answers that repeat the prompt.

They are heuristics for English. They decide what a page lists first. No table and no choice uses
them.
"""

import re

# A refusal is looked for in these first characters. Later in a response, the same words are as
# often part of an answer.
BEGINNING = 160
REFUSAL = re.compile(
    r"\b(i'?m sorry\b|i apologi[sz]e\b|i (can(no|')?t|cannot|can not|won'?t|will not|am unable to|'?m unable to|am not able to|'?m not able to)"
    r" (help|assist|do|provide|answer|comply|fulfil+|create|write|generate|discuss|share|give|offer|support|engage)"
    r"|as an ai\b|as a (large )?language model\b|against my (guidelines|programming|principles))",
    re.IGNORECASE,
)
SHORTEST = 20  # least characters of a prompt: shorter ones occur in many answers by chance


def refuses(response: str) -> bool:
    """Whether a response begins like a refusal."""
    return bool(REFUSAL.search(response[:BEGINNING].replace("\u2019", "'")))


def repeats_prompt(prompt: str, response: str) -> bool:
    """Whether a response contains the whole prompt, ignoring white space and case.

    A short prompt must stand at the beginning.
    """
    asked, said = (" ".join(text.split()).casefold() for text in (prompt, response))
    return bool(asked) and (asked in said if len(asked) >= SHORTEST else f"{said} ".startswith(f"{asked} "))
