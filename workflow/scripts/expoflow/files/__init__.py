"""Bytes to disk, whole: nothing here knows what a model is."""
