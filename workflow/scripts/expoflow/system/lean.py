"""Lets transformers do without scikit-learn."""

import sys


def without_sklearn() -> None:
    """Keep transformers from importing scikit-learn, a fifth of the CPU time that model classes take to import.

    transformers needs it for assisted generation only. Other code can still import it. Call this
    before the first model class is imported.
    """
    from transformers.utils import is_sklearn_available

    if "sklearn" not in sys.modules:
        sys.modules["sklearn"] = (
            None  # what cannot be imported is not available, and transformers remembers that
        )
        is_sklearn_available()
        del sys.modules["sklearn"]
