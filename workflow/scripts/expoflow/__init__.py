"""expoflow: better-aligned language models by weight extrapolation (ExPO), with evidence."""

__version__ = "0.1.0"
