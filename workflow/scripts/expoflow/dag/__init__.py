"""What the rules ask of the library when Snakemake plans: digests of code, wildcards, resources. Imports no torch."""
