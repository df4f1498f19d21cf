"""The miniature's own training loops: one module per recipe, found by its name.

A new recipe is a module here and its model in `config.recipes`; see docs/contributing.md.
"""
