"""Rewards and likelihoods of responses."""
