"""transformers without an import that it makes for a use of its own alone."""

import sys


def without_sklearn() -> None:
    """Keep transformers from importing scikit-learn, which takes a fifth of all the time that its models take to import.

    transformers needs it for assisted generation only. Other code can import it as before. Call this before the first
    model class is imported.
    """
    from transformers.utils import is_sklearn_available

    if "sklearn" not in sys.modules:
        sys.modules["sklearn"] = (
            None  # what cannot be imported is not available, and transformers remembers that
        )
        is_sklearn_available()
        del sys.modules["sklearn"]
