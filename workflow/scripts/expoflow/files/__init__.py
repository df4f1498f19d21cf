"""Complete writes to disk. Nothing here depends on what a model is."""
