"""What the display of `expoflow run` costs: its CPU seconds beside those of the run that it shows, in one and the same run.

The run's seconds are those of Snakemake and the jobs that it waits for; engine hosts, which do most of a sweep's work, are
not among them, so that the true share is smaller. Run it at a terminal, or by `script -qc`: in a pipe there is no picture.

    python bench/display.py --work DIR [--config FILE] [--looks 200]
"""

import argparse
import resource
import sys
import time
from pathlib import Path

from expoflow.project import show
from expoflow.project.display import Board
from expoflow.system.installed import workflow_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--config", type=Path, default=workflow_folder() / "config/config.yaml")
    parser.add_argument("--looks", type=int, default=200, help="pictures of the finished run to be timed")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(workflow_folder() / "Snakefile")]
    command += [
        "--configfile",
        str(arguments.config.absolute()),
        "--directory",
        str(arguments.work.absolute()),
    ]
    cpu, clock = time.process_time(), time.monotonic()
    status = show.run([*command, "--cores", "all"], arguments.work)
    shown, wall = time.process_time() - cpu, time.monotonic() - clock
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = used.ru_utime + used.ru_stime
    board = Board(arguments.work)
    board.read()
    cpu = time.process_time()
    for _ in range(arguments.looks):
        board.read()
        board.lines(140, 50)
    look = (time.process_time() - cpu) / arguments.looks
    print(f"status {status}, {wall:.0f} s")
    print(f"run: {run:.1f} CPU-seconds; display: {shown:.2f} ({100 * shown / run:.2f} %)")
    print(f"one look at the files, once a second: {1000 * look:.2f} ms of CPU")


if __name__ == "__main__":
    main()
