"""What a choice of alpha is in words."""

from expoflow.results import Best


def compared(best: Best) -> str:
    """What else would have been chosen: ` On the same responses: by nll alpha 8, by implicit alpha 2.`"""
    said = ", ".join(f"by {by} alpha {alpha}" for by, alpha in best.others.items())
    return f" On the same responses: {said}." if said else ""
