"""Training of models by their recipes."""
