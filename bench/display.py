"""Measure the CPU seconds of the display of `expoflow run`, and of the run that it shows.

Then the same run is repeated in a fresh folder without the display, for its CPU seconds and its
time. The run's seconds are those of Snakemake and the jobs that it waits for. Engine hosts, which
do most of a sweep's work, are not included, so the true share is smaller. Run it at a terminal, or
with `script -qc`: in a pipe nothing is displayed.

    python bench/display.py --work DIR [--config FILE] [--looks 200]
"""

import argparse
import os
import resource
import subprocess
import time
from pathlib import Path

from expoflow.project import show
from expoflow.project.display import Board
from expoflow.project.folder import snakemake
from expoflow.system.installed import workflow_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="a folder for both runs, which may not have any yet"
    )
    parser.add_argument("--config", type=Path, default=workflow_folder() / "config/config.yaml")
    parser.add_argument("--looks", type=int, default=200, help="pictures of the finished run to be timed")
    arguments = parser.parse_args()
    with_display, without = arguments.work / "with", arguments.work / "without"
    cpu, clock = time.process_time(), time.monotonic()
    status = show.run(command(with_display, arguments.config), with_display)
    shown, wall, run = time.process_time() - cpu, time.monotonic() - clock, of_children()
    board = Board(with_display)
    board.read()
    cpu = time.process_time()
    for _ in range(arguments.looks):
        board.read()
        board.lines(140, 50)
    look = (time.process_time() - cpu) / arguments.looks
    print(f"status {status}, {wall:.0f} s")
    print(f"run: {run:.1f} CPU-seconds; display: {shown:.2f} ({100 * shown / run:.2f} %)")
    print(f"one look at the files, once a second: {1000 * look:.2f} ms of CPU")
    clock = time.monotonic()
    subprocess.run(
        command(without, arguments.config), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    print(f"without: {of_children() - run:.1f} CPU-seconds, {time.monotonic() - clock:.0f} s")


def command(folder: Path, config: Path) -> list[str]:
    """Return Snakemake's command for a run of `config` in `folder`, with its own store."""
    folder.mkdir(parents=True)
    os.environ["EXPOFLOW_STORE"] = str(folder / "store")
    return snakemake(config, folder, ["--cores", "all"])


def of_children() -> float:
    """Return the CPU seconds of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
