"""A slot: a GPU or a core, and the host that works there. A host may have several slots."""

import fcntl
import json
import os
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Container, Iterator
from contextlib import closing, contextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Any

from expoflow import errors
from expoflow.errors import ExpoflowError
from expoflow.hosts import spawn, waiting
from expoflow.hosts import task as tasks
from expoflow.hosts.crash import DiedError, GivenUpError, end_session
from expoflow.hosts.head import Head
from expoflow.hosts.task import Task
from expoflow.hosts.waiting import Holder, Ticket, Wish, assign
from expoflow.hosts.width import width
from expoflow.paths import RESULTS
from expoflow.system import progress
from expoflow.system.processes import ended, readable

# Seconds in which a new host must answer. Loading comes later and may take as long as it needs.
ANSWER = 120
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from expoflow.hosts import host; host.main(sys.argv[1], int(sys.argv[3]))"


@contextmanager
def free_slot(head: Head, task: Task) -> Iterator["Slot"]:
    """Yield the slot for a task, kept while the block runs; waits if none is free."""
    with taken(head, wish_for(head, task)) as slot:
        yield slot


def wish_for(head: Head, task: Task) -> Wish:
    """Return the wish for slots that a task has."""
    return Wish(kind=task.holds, key=task.key, slots=width(head, task))


@contextmanager
def taken(head: Head, wish: Wish) -> Iterator["Slot"]:
    """Yield the slots for a wish, kept while the block runs; the first slot has the others."""
    slot = awaited(head, Ticket(wish), threading.Event())
    try:
        yield slot
    finally:
        slot.leave()


def awaited(head: Head, ticket: Ticket, given_up: threading.Event) -> "Slot":
    """Wait for the slots of a ticket and return them; the caller must leave them.

    Raises GivenUpError if that event is set meanwhile; later requests to the slot end by it too.
    Raises ExpoflowError if the head ends.
    """
    try:
        while True:
            head.require()
            with entered(head.folder) as folder:
                ticket.show(folder)
                if slot := _given(head, folder, ticket):
                    ticket.drop(folder)
                    slot.given_up = given_up
                    return slot
            if given_up.wait(0.2):
                raise GivenUpError
    finally:
        ticket.drop()


def _given(head: Head, folder: int, ticket: Ticket) -> "Slot | None":
    """Return the slots that a ticket gets now; None if it has to wait."""
    free = {}
    for number in range(len(head.slots)):
        with suppress(BlockingIOError):
            free[number] = Slot(head, number, folder)
    try:
        if not free:
            return None
        wishes = ticket.all(folder)
        gpus = head.slots[0] is not None
        gifts = assign(len(head.slots), free, [*_holders(head, folder, free)], [*wishes.values()], gpus)
        gift = gifts.get([*wishes].index(ticket.name))
        if gift is None or (gift.patient and _wait(ticket, [free[number].lock for number in gift.slots])):
            return None
        parts = sum(wish.parts * wish.slots for wish in wishes.values()) / len(free)
        first, *rest = (free.pop(number) for number in gift.slots)
        first.parts = ceil(parts)
        first.take(ticket.wish, rest)
        return first
    finally:
        for slot in free.values():
            os.close(slot.lock)


def _wait(ticket: Ticket, locks: list[int]) -> bool:
    """Return whether the wish is new, or the slots were left just now, according to their files."""
    left = max(os.fstat(lock).st_mtime for lock in locks)
    return min(time.monotonic() - ticket.since, time.time() - left) < waiting.PATIENCE


def _holders(head: Head, folder: int, free: Container[int]) -> Iterator[Holder]:
    """Yield what is on the slots."""
    for number in range(len(head.slots)):
        note, held = read_note(folder, number), {}
        if present := (head.folder / f"slot-{number}.sock").exists():
            held = note["held"]
        if number not in free and (job := note["taken"]):
            yield Holder(tuple(job["slots"]), held | {job["kind"]: job["key"]})
        elif present:
            yield Holder(tuple(note["slots"] or [number]), held)


class Slot:
    """A GPU or a core, reserved until `lock` is closed, and the host that works there."""

    def __init__(self, head: Head, number: int, folder: int):
        """`folder` is the entered runtime folder. Raises BlockingIOError if the slot is taken."""
        self.head, self.number = head, number
        self.numbers: tuple[int, ...] = (number,)
        self.parts = 1  # parts of the waiting work that these slots should do
        self.given_up = threading.Event()
        self._rest: list[Slot] = []
        self.gpu = head.slots[number]
        self.socket = f"slot-{number}.sock"
        # None: the host writes to the job's own output.
        self.log = None if head.is_here() else RESULTS.host_log(number, head.job)
        self.lock = os.open(f"slot-{number}", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=folder)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.lock)
            raise

    def take(self, wish: Wish, rest: list["Slot"]) -> None:
        """Take the slots of `rest` too, and record the wish in the slots' files."""
        self._rest = rest
        self.numbers = (self.number, *(slot.number for slot in rest))
        if self.gpu is not None:
            self.gpu = ",".join(self.head.slots[number] for number in self.numbers)
        note(self.lock, taken={"kind": wish.kind, "key": wish.key, "slots": self.numbers})
        for slot in rest:
            note(slot.lock, taken=None)

    def leave(self) -> None:
        """Release the slots."""
        for slot in (self, *self._rest):
            os.utime(slot.lock)
            os.close(slot.lock)

    def clear(self) -> None:
        """End the hosts on these slots, to free all memory there."""
        with entered(self.head.folder) as folder:
            self._end_hosts(folder, but=None)

    def _end_hosts(self, folder: int, but: tuple[int, ...] | None) -> None:
        """End hosts on any of these slots, except the one on exactly `but`; no job uses them."""
        for number in range(len(self.head.slots)):
            found = read_note(folder, number)
            there = tuple(found["slots"] or [number])
            if found["pid"] and there != but and set(there) & set(self.numbers):
                end_session(found["pid"], self.head)
                with suppress(FileNotFoundError):
                    os.unlink(f"slot-{number}.sock", dir_fd=folder)
                lock = os.open(f"slot-{number}", os.O_RDWR, dir_fd=folder)
                note(lock, pid=None, held={})
                os.close(lock)

    def ask(self, task: Task) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of a task done by the slot's host, which is started if there is none.

        Raises DiedError if the host dies, and GivenUpError.
        """
        connection, pid = self._connect(task)
        name = f"the engine host of slot {self.number} (process {pid})"
        problem = "has died"
        log = _WholeLines()
        with connection, closing(log), suppress(ConnectionError):
            lines = _lines(connection, pid, self.given_up)
            if not next(lines):
                problem = f"has not answered within {ANSWER} seconds"
                raise ConnectionError
            request = {"task": task.model_dump(mode="json"), "threads": os.environ.get("OMP_NUM_THREADS")}
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in filter(None, lines):
                match json.loads(line):
                    case {"rows": rows}:
                        yield rows
                    case {"log": text}:
                        log.write(text)
                    case {"progress": said}:
                        progress.report(*said)
                    case {"error": [kind, text]}:
                        raise _known(kind, text)
                    case {"failed": text}:
                        raise RuntimeError(f"in {name}:\n{text}")
                    case {"done": _}:
                        return
        end_session(pid, self.head)
        raise DiedError(f"{name} {problem}")

    def tail(self) -> str:
        """Return the end of the host's log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        return ""

    def _connect(self, task: Task) -> tuple[socket.socket, int]:
        """Return a connection to the slot's host, and the host's process id.

        On a GPU, a host that holds something else than the task needs is ended, and a new one
        started. Only the end of a process frees all of its GPU memory, and vLLM needs nearly all of
        it.
        """
        with entered(self.head.folder) as folder:
            # By the descriptor, since a socket's path must not exceed 107 bytes.
            path = f"/proc/self/fd/{folder}/{self.socket}"
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._end_hosts(folder, but=self.numbers)
            found = read_note(folder, self.number)
            pid, held = found["pid"], found["held"]
            spent = self.gpu is not None and held and not task.is_ready(held)
            with suppress(FileNotFoundError, ConnectionRefusedError):
                connection.connect(path)
                if pid and not ended(pid) and not spent:
                    return connection, pid
            if pid:  # it holds something else, or died in the meantime
                end_session(pid, self.head)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with suppress(FileNotFoundError):
                os.unlink(self.socket, dir_fd=folder)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(path)
                listener.listen()
                connection.connect(path)
                return connection, self._start(folder, listener.fileno())

    def _start(self, folder: int, listener: int) -> int:
        """Start a host that takes over the listening socket; return its process id."""
        settings = {
            "head": self.head.model_dump(mode="json"),
            "slot": self.number,
            "own_log": self.log is not None,
            "kinds": tasks.KINDS,
        }
        quiet = [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"]  # about memory it removes
        environment = {
            "EXPOFLOW_HEAD": self.head.model_dump_json(),
            "PYTHONWARNINGS": ",".join(filter(None, quiet)),
            progress.FILE: "",  # the host reports to each job itself
        }
        if self.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpu
        order = spawn.Order(
            command=[sys.executable, "-c", BOOT, json.dumps(settings), json.dumps(sys.path)],
            environment=os.environ | environment,
            cwd=os.getcwd(),
            log=None if self.log is None else str(self.log),
        )
        pid = spawn.ask(folder, order, listener) if self.head.job else spawn.spawn(order, listener)
        note(self.lock, pid=pid, held={}, slots=self.numbers)
        return pid


def end_host(head: Head) -> None:
    """End this process' own host, when the process exits."""
    if head.is_here():
        with suppress(OSError, ValueError):
            if pid := json.loads((head.folder / "slot-0").read_text()).get("pid"):
                end_session(pid, head)
        shutil.rmtree(head.folder, ignore_errors=True)


def note(lock: int, **changed: Any) -> None:
    """Record changes in a slot's file: the host's `pid`, `slots`, `held`, or who has `taken` it."""
    text = json.dumps(_note(lock) | changed).encode()
    # In one write: readers always find a whole note, even after a kill.
    os.pwrite(lock, text.ljust(os.fstat(lock).st_size), 0)
    os.ftruncate(lock, len(text))


def read_note(folder: int, number: int) -> dict[str, Any]:
    """Return the content of a slot's file."""
    with suppress(FileNotFoundError):
        file = os.open(f"slot-{number}", os.O_RDONLY, dir_fd=folder)
        try:
            return NOTHING | _note(file)
        finally:
            os.close(file)
    return dict(NOTHING)


NOTHING: dict[str, Any] = {"pid": None, "held": {}, "slots": None, "taken": None}


def _note(file: int) -> dict[str, Any]:
    try:
        return json.loads(os.pread(file, 1 << 20, 0))
    except ValueError:  # empty, or just being written
        return {}


@contextmanager
def entered(folder: Path) -> Iterator[int]:
    """Lock the runtime folder against others, and yield its descriptor. It is made if missing."""
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # removed just now
            continue
        except NotADirectoryError:
            raise ExpoflowError(
                f"{folder} is not a folder; delete it, or set TMPDIR to another place"
            ) from None
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(descriptor)
            raise ExpoflowError(
                f"{folder} is accessible to others than its user (owner {status.st_uid}, mode"
                f" {stat.S_IMODE(status.st_mode):o}); delete it, or set TMPDIR to another place"
            )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(status, os.stat(folder)):
                break
        os.close(descriptor)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lines(connection: socket.socket, pid: int, given_up: threading.Event) -> Iterator[bytes]:
    """Yield a host's messages line by line; an empty one comes first if that takes too long.

    Raises ConnectionError at its end. The process is watched too, since its forks may keep the
    connection open.
    """
    waited, rest = 0, b""
    while True:
        if given_up.is_set():
            raise GivenUpError
        # Second by second, so time in which this process is stopped does not count.
        if readable(connection.fileno(), 1000):
            if not (data := connection.recv(1 << 20)):
                raise ConnectionResetError
            waited = -1
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
        elif ended(pid) and not readable(connection.fileno()):
            raise ConnectionResetError
        elif 0 <= waited < ANSWER:
            waited += 1
        elif waited == ANSWER:
            yield b""


class _WholeLines:
    """A host's output, printed in whole lines, since other threads of the job may print too."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> None:
        """Print the lines that are complete."""
        lines, end, self._rest = (self._rest + text).rpartition("\n")
        print(lines + end, end="", flush=True)

    def close(self) -> None:
        """Print the rest."""
        if self._rest:
            self.write("\n")


def _known(kind: str, text: str) -> ExpoflowError:
    """Return one of expoflow's errors by the name of its class."""
    if kind == "ConfigError":
        return errors.ConfigError(text.split("\n"))
    return getattr(errors, kind, ExpoflowError)(text)
