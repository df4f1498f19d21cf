"""LLM judges: who they are, what is asked of them, what it costs, and their verdicts."""
