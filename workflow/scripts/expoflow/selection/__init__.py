"""The choice of alpha: criteria, statistics, and the tables of a sweep."""
