"""An engine host: it does the tasks of one slot, one after the other, and keeps models loaded.

Jobs start it (see `hosts.client`). It ends at once when the head does, and after some idle time.
All processes that it has started end with it.
"""

import faulthandler
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import queue
import select
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from expoflow.errors import ExpoflowError
from expoflow.files.records import Record
from expoflow.hosts import crash, slot, task
from expoflow.hosts.head import Head
from expoflow.hosts.slot import Slot, entered
from expoflow.hosts.task import Held, Task, work
from expoflow.hosts.width import shares_cores
from expoflow.system import processes, progress
from expoflow.system.last_words import environment

# Seconds that the current work has to reach its next yield after the head's end.
GRACE = 5


class Settings(Record):
    """A job's settings for the host that it starts.

    With `own_log` the host has its own log; otherwise it writes to the job's output.
    """

    head: Head
    slot: int
    own_log: bool
    kinds: dict[str, str]


def main(settings: str, listener: int) -> None:
    """Serve until the head ends or no job comes any more.

    `listener` is the descriptor of a socket on which a job waits for an answer.
    """
    faulthandler.enable()
    Host(Settings.model_validate_json(settings), listener).serve()


class GoneError(Exception):
    """A job has ended, or has given up its task."""


class Voice(io.TextIOBase):
    """Python's stdout and stderr: a task's output goes to its job, the rest to the host's log."""

    def __init__(self, log: io.TextIOBase):
        self.log = log
        self.job: Callable[[str], None] | None = None

    def write(self, text: str) -> int:
        """Pass the text on."""
        try:
            (self.job or self.log.write)(text)
        except GoneError:  # its task ends at the next yield
            self.log.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the log; jobs see output at once."""
        self.log.flush()

    def fileno(self) -> int:
        """Return the log's descriptor."""
        return self.log.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True


class Client:
    """A job that asks for a task."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self._sending = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send one line."""
        try:
            with self._sending:
                self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            raise GoneError from None

    def report(self, *said: Any) -> None:
        """Pass reports of `progress` to the job; if that has gone, the task soon ends."""
        with suppress(GoneError):
            self.send(progress=said)

    def request(self) -> dict[str, Any]:
        """Return the one line that the job sends."""
        line = ""
        with suppress(OSError), self.connection.makefile("r", encoding="utf-8") as stream:
            line = stream.readline()
        if not line.endswith("\n"):
            raise GoneError
        return json.loads(line)

    def gone(self) -> bool:
        """Return whether the job has gone; it sends nothing else that could be read."""
        return processes.readable(self.connection.fileno())


class Host:
    """The process of one slot."""

    def __init__(self, settings: Settings, listener: int):
        self.head, self.slot = settings.head, settings.slot
        task.KINDS = settings.kinds
        self.listener = socket.socket(fileno=listener)
        self.listener.set_inheritable(False)
        self.clients: queue.SimpleQueue[Client | None] = queue.SimpleQueue()
        self.ending = threading.Event()
        self.held = Held(self._note)
        self.voice = sys.stdout = sys.stderr = Voice(sys.stderr)
        self.own_log = settings.own_log
        self.looked, self.share = -1.0, 1  # when busy slots were last counted, and this slot's cores
        self.children: list[BaseProcess] = []  # those alive after the last step
        os.register_at_fork(after_in_child=self._forked)

    def serve(self) -> NoReturn:
        """Do tasks until the head ends or no job comes any more."""
        if (head := self.head.watch()) is None:
            self._end()
        print(
            f"{time.strftime('%F %T')} host {os.getpid()} of slot {self.slot} serves process {self.head.pid}"
        )
        self.voice.flush()
        threading.Thread(target=self._watch, args=(head,), daemon=True).start()
        while True:
            try:
                client = self.clients.get(timeout=self.head.idle)
            except queue.Empty:
                self._leave_unless_wanted()
                continue
            if client is None:
                self._end()
            with client.connection:
                self._serve(client)

    def _watch(self, head: int) -> NoReturn:
        """Accept jobs, and greet each, until the head ends; runs in a thread."""
        poll = select.poll()
        poll.register(head, select.POLLIN)
        poll.register(self.listener, select.POLLIN)
        while head not in [descriptor for descriptor, _ in poll.poll()]:
            connection, _ = self.listener.accept()
            client = Client(connection)
            with suppress(GoneError):
                client.send(hello=os.getpid())
                self.clients.put(client)
        self.ending.set()
        self.clients.put(None)
        time.sleep(GRACE)
        self._end(clear=False)

    def _serve(self, client: Client) -> None:
        """Do one task and send its errors to the job; an unexpected exception ends the host too."""
        if self.own_log:
            self.voice.job = lambda text: client.send(log=text)
        try:
            request = client.request()
            task = Task.model_validate(request["task"])
            share = shares_cores(self.head, task)
            _set_threads(self._threads(share, request["threads"]))
            with (
                progress.heard_by(client.report),
                closing(work(task.kind)(self.held, task.arguments)) as steps,
            ):
                for rows in steps:
                    _set_threads(self._threads(share, request["threads"]))
                    self.children = multiprocessing.active_children()
                    if self.ending.is_set() or client.gone():
                        return
                    if rows:
                        client.send(rows=rows)
            client.send(done=True)
        except GoneError:
            pass
        except ExpoflowError as error:
            on_gpu = self.head.slots[self.slot] is not None
            if on_gpu:  # remains of the model there would be in the next one's way
                self._withdraw_alone()
            self.held.clear()  # a model may be half changed
            with suppress(GoneError):
                client.send(error=[type(error).__name__, str(error)])
            if on_gpu:
                self._end()
        except BaseException as error:
            failed = traceback.format_exc()
            self.voice.log.write(failed)
            self.voice.flush()
            self._withdraw_alone()
            if self._bereft():  # the job gets no answer, and so learns that this host has died too
                self._end(clear=False)
            with suppress(Exception):
                self.held.clear()
            with suppress(GoneError):
                line = environment(error)
                client.send(**({"error": ["ExpoflowError", line]} if line else {"failed": failed}))
            self._end(clear=False)
        finally:
            self.voice.job = None

    def _threads(self, share: bool, asked: str | None) -> str | None:
        """Return the number of threads for the current work.

        It is the job's own number, or with `share` its share of all cores, which is updated every
        second.
        """
        if not share or asked is None:
            return asked
        if time.monotonic() > self.looked + 1:
            self.looked = time.monotonic()
            self.share = len(self.head.slots) // max(1, self._busy())
        return str(max(int(asked), self.share))

    def _busy(self) -> int:
        """Return how many slots are used by jobs."""
        busy = 0
        with entered(self.head.folder) as folder:
            for number in range(len(self.head.slots)):
                try:
                    os.close(Slot(self.head, number, folder).lock)
                except BlockingIOError:
                    busy += 1
        return busy

    def _bereft(self) -> bool:
        """Return whether a process that worked for this one, such as vLLM's for a GPU, has died.

        Its death may cause errors in others before it has ended.
        """
        sentinels = [child.sentinel for child in self.children]
        return bool(sentinels and multiprocessing.connection.wait(sentinels, timeout=GRACE))

    def _forked(self) -> None:
        """Keep the output of a process that the work forked out of the lines sent to the job."""
        self.voice.job = None

    def _leave_unless_wanted(self) -> None:
        """End, unless a job has taken the slot and is about to ask."""
        with entered(self.head.folder) as folder:
            try:
                slot = Slot(self.head, self.slot, folder)
            except BlockingIOError:
                return
            self._withdraw(folder)
        self.held.clear()
        os.close(slot.lock)
        self._end()

    def _withdraw_alone(self) -> None:
        """Remove the host's socket while the folder is locked, so no job finds the host."""
        with entered(self.head.folder) as folder:
            self._withdraw(folder)

    def _withdraw(self, folder: int) -> None:
        """Remove the host's socket, so no job finds it; `folder` is the entered runtime folder."""
        with suppress(FileNotFoundError):
            os.unlink(f"slot-{self.slot}.sock", dir_fd=folder)

    def _end(self, clear: bool = True) -> NoReturn:
        """End, with everything started here; the last host or job removes the runtime folder."""
        if clear:
            self.held.clear()
        crash.end_session(os.getpid(), self.head)
        if not self.head.alive():
            shutil.rmtree(self.head.folder, ignore_errors=True)
        else:
            with slot.entered(self.head.folder) as folder:
                if not self._others(folder):
                    shutil.rmtree(self.head.folder, ignore_errors=True)
        self.voice.flush()
        os._exit(0)

    def _others(self, folder: int) -> bool:
        """Return whether a host or a job is still there."""
        try:
            for number in range(len(self.head.slots)):
                os.close(Slot(self.head, number, folder).lock)
        except BlockingIOError:
            return True
        return any(name.endswith(".sock") for name in os.listdir(folder))

    def _note(self, held: dict[str, str]) -> None:
        with suppress(FileNotFoundError):
            note = os.open(self.head.folder / f"slot-{self.slot}", os.O_RDWR)
            slot.note(note, pid=os.getpid(), held=held)
            os.close(note)


def _set_threads(threads: str | None) -> None:
    """Use the job's number of threads, as torch would if it were imported now."""
    if threads is None or threads == os.environ.get("OMP_NUM_THREADS"):
        return
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(threads))
