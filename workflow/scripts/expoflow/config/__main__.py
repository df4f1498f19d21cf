"""Print the JSON schema of a config: python -m expoflow.config > config/schema.json."""

import os
import sys

from expoflow.config import schema
from expoflow.config.base import DESCRIBED

if __name__ == "__main__":
    if DESCRIBED not in os.environ:  # the sections were created without their descriptions
        os.execve(sys.executable, [sys.executable, "-m", "expoflow.config"], os.environ | {DESCRIBED: "1"})
    print(schema(), end="")
