"""Run Snakemake and show its run at the terminal, or show a run that is at work elsewhere.

At a terminal, `display`'s lines are updated in place, and messages of jobs go above them. Elsewhere
one plain line per minute is printed.
"""

import codecs
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from expoflow.errors import shown
from expoflow.project import resume, status
from expoflow.project.display import Board
from expoflow.project.terminal import INTERRUPTED, SHOWN
from expoflow.system.child import end_with
from expoflow.system.logs import QUIET as QUIET_JOBS

EVERY = 1.0  # seconds between two reads of the run's files, and at least between two updates
ABOVE = 8  # lines of a screen that are left free for messages
QUIET = 60.0  # seconds between two lines if there is no terminal
GROUP = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)  # a terminal sends these to jobs too
ASCII = str.maketrans("━─", "=-")
HEADS = 10.0  # seconds between two checks whether the head of a run is alive


def run(command: Sequence[str], folder: Path, keep: Sequence[int] = ()) -> int:
    """Run Snakemake by `command` in `folder` and show the run; return a shell's exit status.

    The status is 130 after Ctrl-C. Signals are passed on to Snakemake, which does not outlive this
    process. It inherits the descriptors `keep`.
    """
    reading, writing = os.pipe()
    board = Board(folder)
    with tempfile.TemporaryFile() as early, picture(board, sys.stderr) as shows:
        parent, head = os.getpid(), None
        interrupted = False

        def pass_on(number: int, frame: FrameType | None) -> None:
            nonlocal interrupted
            interrupted |= number == signal.SIGINT
            with suppress(ProcessLookupError):
                if head and number in GROUP:
                    os.killpg(head.pid, number)
                elif head:
                    head.send_signal(number)

        for number in (*GROUP, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                signal.signal(number, pass_on)
        head = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=early,
            pass_fds=(writing, *keep),
            env=os.environ | {SHOWN: str(writing), QUIET_JOBS: "1"},
            process_group=0,
            preexec_fn=lambda: end_with(parent),
        )
        board.head = head.pid
        os.close(writing)
        for line in _said(reading, head, shows.look):
            if not interrupted or line.startswith(
                "expoflow: "
            ):  # other lines are from jobs interrupted during their imports
                shows.say(line)
        early.seek(0)
        before = early.read().decode(errors="replace").rstrip("\n")
        if interrupted and before:  # interrupted during its imports
            before = "\n".join(INTERRUPTED)
        for line in filter(None, before.split("\n")):
            shows.say(line)
    if interrupted and head.returncode:
        return 128 + signal.SIGINT
    return 128 - head.returncode if head.returncode < 0 else head.returncode


def watch(folder: Path) -> None:
    """Show the run in `folder`, wherever it is at work, until it ends.

    On this machine a run that is about to begin is shown too.
    """
    board = Board(folder)
    with suppress(KeyboardInterrupt), picture(board, sys.stdout) as shows:
        asked = 0.0
        while (
            begun := at_work(board, time.monotonic() > asked + HEADS)
        ) or folder.resolve() in status.runs():
            if time.monotonic() > asked + HEADS:
                asked = time.monotonic()
            if begun:  # otherwise the files are still the last run's
                shows.look()
            time.sleep(EVERY)


def at_work(board: Board, look: bool = True) -> bool:
    """Return whether the run has begun and not ended.

    With `look` two more cases are recognized: a head that was killed on this machine, and a folder
    that is a copy of a run's folder.
    """
    run = board.read()
    if not run or run.ending:
        return False
    if not look:
        return True
    last = resume.last_run(board.folder)
    return last is not None and (last.host != socket.gethostname() or last.alive())


def _said(reading: int, head: subprocess.Popen, look: Callable[[], None]) -> Iterator[str]:
    """Yield the lines from the pipe until `head` has ended; `look` is called now and then."""
    decoder, rest, open_ = codecs.getincrementaldecoder("utf-8")("replace"), "", True
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    while True:
        ended = head.poll() is not None
        if not open_:
            time.sleep(0 if ended else EVERY / 2)
        elif poll.poll(0 if ended else EVERY * 500):
            text = os.read(reading, 65536)
            open_ = bool(text)
            if not open_:
                poll.unregister(reading)
            *lines, rest = (rest + decoder.decode(text)).split("\n")
            yield from lines
            if open_ and ended:
                continue  # its last words
        if ended:
            break
        look()
    os.close(reading)
    if rest:
        yield rest


class Plain:
    """Display without a terminal: messages, and a line per minute. It may lose its reader."""

    def __init__(self, board: Board, file: IO[str]):
        self.board, self.file = board, file
        self.next = time.monotonic() + QUIET

    def say(self, line: str) -> None:
        """Show a message."""
        with suppress(OSError):
            print(shown(line), file=self.file, flush=True)

    def look(self) -> None:
        """Show how far the run is, if it is time."""
        if time.monotonic() > self.next:
            self.next = time.monotonic() + QUIET
            if self.board.read():
                self.say(self.board.sentence(detailed=True))


class Live:
    """Display at a terminal: lines updated in place, below messages. It may lose its terminal."""

    def __init__(self, board: Board, file: IO[str]):
        from rich.console import Console
        from rich.live import Live as Screen

        self.board = board
        self.console = Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.screen = Screen(
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.next = 0.0
        self.drawn: list[str] = []
        with suppress(OSError):
            self.screen.start()

    def say(self, line: str) -> None:
        """Show a message above the display, or in its place if the run is over."""
        from rich.text import Text

        self.board.read()
        with suppress(OSError):
            if self.board.over():
                self.screen.stop()
            self.console.print(Text(shown(line)), soft_wrap=True)

    def look(self) -> None:
        """Update the display, if it is time and it has changed."""
        if time.monotonic() > self.next and self.screen.is_started:
            self.next = time.monotonic() + EVERY
            self.board.read()
            width, height = self.console.size
            lines = self.board.lines(width - 1, max(height - ABOVE, height // 2))
            if not self.console.encoding.startswith("utf"):
                lines = [line.translate(ASCII) for line in lines]
            if lines != self.drawn:
                from rich.text import Text

                self.drawn = lines
                with suppress(OSError):
                    self.screen.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)


@contextmanager
def picture(board: Board, file: IO[str]) -> Iterator[Plain | Live]:
    """Yield the display of a run for the readers of `file`."""
    if not file.isatty() or os.environ.get("TERM") == "dumb":
        yield Plain(board, file)
        return
    live = Live(board, file)
    try:
        yield live
    finally:
        with suppress(OSError):
            live.screen.stop()
