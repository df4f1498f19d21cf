"""LLM judges: the client, the calls, their costs, and the verdicts."""
