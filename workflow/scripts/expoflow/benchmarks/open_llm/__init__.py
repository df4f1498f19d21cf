"""The Open LLM Leaderboard, version 1, through lm-eval."""
