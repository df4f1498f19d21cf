"""Training by TRL, one stage after the other."""
