"""Run `expoflow` with a test's patience: python put.py COMMAND ..."""

import sys

from expoflow import hub
from expoflow.cli import main

hub.WAITS = (0.1, 0.2, 0.4, 0.8)
sys.exit(main(sys.argv[1:]))
