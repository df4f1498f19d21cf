"""Find degenerate responses: empty, unfinished, or repeating themselves.

This needs no tokenizer and works for any language.
"""

# A response repeats itself if it ends in a loop: the same piece at least TIMES times in a row, over
# at least CHARACTERS characters.
TIMES = 5
CHARACTERS = 60


def fault(response: str, finish_reason: str) -> str:
    """Return the first of `empty`, `repeating` and `unfinished` that applies, or "" for an answer.

    A response of only white space is empty. A response that was cut off in a loop counts as
    repeating; its `finish_reason` still shows that it is unfinished.
    """
    if not response.strip():
        return "empty"
    if repeats(response):
        return "repeating"
    return "unfinished" if finish_reason == "length" else ""


def repeats(text: str) -> bool:
    """Whether the text, without trailing white space, ends in a loop.

    The last piece need not be whole. In a loop, the last characters also occur one piece earlier.
    Each earlier occurrence, the nearest first, gives a possible length of the piece. A text without
    loops has few of them.
    """
    text = text.rstrip()
    end = text[-(CHARACTERS // TIMES) :]
    place = text.rfind(end, 0, -1)
    while place >= 0:
        piece = len(text) - len(end) - place
        loop = max(CHARACTERS, TIMES * piece)
        if loop > len(text):
            return False
        if text[-loop:-piece] == text[piece - loop :]:
            return True
        place = text.rfind(end, 0, place + len(end) - 1)
    return False
