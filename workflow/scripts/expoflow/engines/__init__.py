"""Engines: one interface that takes a model and prompts and returns responses."""
