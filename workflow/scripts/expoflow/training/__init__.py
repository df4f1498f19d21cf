"""Models trained here, as their recipes say."""
