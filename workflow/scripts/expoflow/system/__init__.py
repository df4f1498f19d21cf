"""Processes, GPUs, logs, progress and installed files: nothing about models."""
