"""Training by TRL, in stages."""
