"""MT-Bench: questions of two turns, each answer graded by an LLM judge."""
