"""A tiny world and tiny models that show ExPO's effect on a CPU in a minute or two."""
