"""Self-contained pages: one HTML file that works from a disk, by mail and offline."""
