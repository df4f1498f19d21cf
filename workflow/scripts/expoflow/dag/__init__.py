"""What the rules need when Snakemake plans: digests of code, wildcards, resources. It does not
import torch."""
