"""The paper's claims, measured on a run: what the section `claims` of a config names pairs for.

Every claim is one or more statements: functions `(Run) -> measures` in the modules of this package, whose docstring
says how they measure. `tables.write` makes results/claims.csv of a run, `page.write` the page over several runs.
"""
