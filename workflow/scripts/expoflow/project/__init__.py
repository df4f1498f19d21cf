"""A user's folder, from the first command to the published model."""
