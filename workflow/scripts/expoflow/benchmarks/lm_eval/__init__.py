"""Tasks of lm-eval: the code that the Open LLM Leaderboard shares with all other tasks."""
