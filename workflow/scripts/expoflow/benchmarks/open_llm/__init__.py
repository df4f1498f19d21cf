"""The Open LLM Leaderboard, version 1, by lm-eval."""
