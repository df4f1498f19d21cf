"""The paper's claims, measured on the pairs that the section `claims` of a config names.

Every claim is one or more statements. A statement is a function `(Run) -> measures` in a module of
this package, and its docstring says how it measures. `tables.write_claims` writes
results/claims.csv of a run, and `page.write_page` the pages over several runs.
"""
