"""Which responses are degenerate: empty, unfinished, or repeating themselves. Needs no tokenizer and knows no language."""

# A response repeats itself if it ends in a loop: the same piece at least so many times in a row, in so many characters.
TIMES = 5
CHARACTERS = 60


def fault(response: str, finish_reason: str) -> str:
    """`empty` (white space at most), `repeating`, `unfinished`, in this order; nothing for a response that is an answer.

    A response at the limit of tokens is named by what it was cut off in: `finish_reason` says that it is unfinished.
    """
    if not response.strip():
        return "empty"
    if repeats(response):
        return "repeating"
    return "unfinished" if finish_reason == "length" else ""


def repeats(text: str) -> bool:
    """Whether the text, but for white space at its end, ends in a loop; the last piece need not be whole.

    In a loop the last characters stand before as well, one piece of it earlier. Each such place, the nearest first, is
    a length that the piece may have, and a few in a text without loops.
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
