"""Run `expoflow` with a test's patience: python put.py COMMAND ..."""

import sys

from expoflow.cli import main
from expoflow.hub import http

http.WAITS = (0.1, 0.2, 0.4, 0.8)
sys.exit(main(sys.argv[1:]))
