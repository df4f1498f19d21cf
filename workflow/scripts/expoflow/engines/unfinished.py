"""The warning for an aligned model that does not end its responses."""

MOSTLY = 0.5  # share of the responses of alpha 0


def words(share: float) -> str:
    """Return a warning, with a remedy, that this share of alpha 0's responses is unfinished."""
    return (
        f"{100 * share:.3g}% of alpha 0's responses are unfinished: they were cut off, so rewards and likelihoods are those of "
        "cut-off texts; name the token that ends a response (stop: [TOKEN ID] of the models), or raise generate.max_tokens"
    )
