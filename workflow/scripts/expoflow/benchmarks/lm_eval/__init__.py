"""Tasks of lm-eval: what the Open LLM Leaderboard shares with any other of them."""
