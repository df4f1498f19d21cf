"""A tiny world and tiny models in which ExPO's effect appears on a CPU, from nothing, in a minute or two."""
