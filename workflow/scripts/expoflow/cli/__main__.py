"""`python -m expoflow.cli`: the command `expoflow`."""

import sys

from expoflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
