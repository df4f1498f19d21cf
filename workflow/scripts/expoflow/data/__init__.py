"""Rows from files and from the hub: prompt sets, datasets, preferences."""
