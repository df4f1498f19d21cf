"""The miniature's own training loops."""
