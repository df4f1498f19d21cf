"""Votes of people on the answers of expo and aligned."""
