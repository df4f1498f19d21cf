"""`python -m expoflow.config > config/schema.json`."""

from expoflow.config import schema

print(schema(), end="")
