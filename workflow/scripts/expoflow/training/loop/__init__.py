"""The miniature's own training loops: a recipe a module, found by its name.

A new recipe is a module here and its model in `config.recipes`; docs/contributing.md says more.
"""
