"""Engine hosts: processes that keep models loaded while jobs come and go."""
