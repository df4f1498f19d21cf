"""MT-Bench: two-turn questions; an LLM judge grades each answer."""
