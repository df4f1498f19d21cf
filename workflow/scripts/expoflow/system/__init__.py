"""Processes, GPUs, logs and installed files: nothing about models."""
