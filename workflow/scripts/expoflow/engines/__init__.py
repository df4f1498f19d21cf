"""Engines: a model and prompts in, responses out; one interface whatever runs the model."""
