"""Work that wants a loaded model, done by engine hosts: processes that the jobs of one local run share.

The main Snakemake process announces itself as the `Head`. A job asks with `run`: it takes a slot (a GPU, or a
core), whose host keeps models loaded from job to job, and gets the rows of its task as they get ready.
Where nobody announced itself (a cluster job, a bare script, `EXPOFLOW_HOST=off`) the very same function
does the work in the job's own process.

Nothing here imports torch. The slots' files lie in the head's runtime folder, which only its user can enter:
`slot-N` is locked (flock) while a job uses the slot and says what its host holds; `slot-N.sock` is the host's
socket. The folder itself is locked while somebody looks for a slot or leaves one.
"""

import atexit
import fcntl
import importlib
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

from expoflow import errors
from expoflow.errors import ExpoflowError
from expoflow.records import Record

# What does the work of each kind of task: a function (held, arguments) that yields lists of JSON rows. It
# yields often, also empty lists, since it can be closed only there.
KINDS = {
    "generate": "expoflow.engines.serve:generate",
    "likelihood": "expoflow.engines.serve:likelihood",
    "open_llm": "expoflow.benchmarks.lm_serve:serve",
    "score": "expoflow.scoring:serve",
    "theory": "expoflow.theory.serve:measure",
}
LOGS = Path("results/logs/hosts")
# Seconds in which a new host must answer; loading comes after that and may take as long as it does.
ANSWER = 120
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from expoflow import host; host.main(sys.argv[1])"


class Loaded(Protocol):
    """What can be kept loaded."""

    def close(self) -> None:
        """Free its memory."""


Thing = TypeVar("Thing", bound=Loaded)
Work = Callable[["Held", dict[str, Any]], Iterator[list[dict[str, Any]]]]


class Task(Record):
    """Plain JSON data that says what to do; `key` is that of what `Held` should hold for it."""

    kind: str
    key: str = ""
    arguments: dict[str, Any]


class Held:
    """What stays loaded between tasks: one object a kind, or one in all where `single`."""

    def __init__(self, single: bool = False, changed: Callable[[dict[str, str]], None] = lambda keys: None):
        self._single, self._changed = single, changed
        self._things: dict[str, tuple[str, Loaded]] = {}

    def get(self, kind: str, key: str, make: Callable[[], Thing]) -> Thing:
        """The object that `key` stands for, made where another one or none is held; that one is closed first."""
        if kind in self._things and self._things[kind][0] == key:
            return self._things[kind][1]
        for other in [*self._things] if self._single else [kind]:
            self._drop(other)
        self._things[kind] = (key, make())
        self._tell()
        return self._things[kind][1]

    def clear(self) -> None:
        """Close everything."""
        for kind in [*self._things]:
            self._drop(kind)

    def _drop(self, kind: str) -> None:
        if kind in self._things:
            _, thing = self._things.pop(kind)
            self._tell()
            thing.close()

    def _tell(self) -> None:
        self._changed({kind: key for kind, (key, _) in self._things.items()})


class Head(Record):
    """The process that hosts live beside, never longer than it: the main Snakemake process.

    `start` is its start time, which tells it from a later process with its pid. `slots` has the GPU, or GPUs, of every
    slot, None for one that is a CPU core. A host leaves after `idle` seconds without a task.
    """

    pid: int
    start: int
    folder: Path
    slots: tuple[str | None, ...]
    idle: float = 60

    def watch(self) -> int | None:
        """A file descriptor that is readable once the process has ended; None if it has."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        with suppress(ProcessLookupError):
            if started(self.pid) == self.start and not readable(descriptor):
                return descriptor
        os.close(descriptor)
        return None

    def alive(self) -> bool:
        """Whether the process has not ended."""
        if (descriptor := self.watch()) is None:
            return False
        os.close(descriptor)
        return True


def announce(cores: int | None, idle: float = 60, width: int = 1) -> None:
    """Make this process the head of the jobs that it will start; with None, let them do without hosts.

    Called once by the main Snakemake process: `cores` is how many jobs can run at a time, `width` how many
    GPUs a model is spread over. Without Linux there are no hosts. Raises ExpoflowError for too few GPUs.
    """
    # Snakemake 9.27 handles SIGTERM by waiting for a lock that the interrupted thread may itself have.
    if callable(handler := signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, lambda *signum: threading.Thread(target=handler, args=signum).start())
    os.environ.pop("EXPOFLOW_HEAD", None)
    if cores is None or not hasattr(os, "pidfd_open"):
        return
    places = Path(tempfile.gettempdir())
    head = Head(
        pid=os.getpid(),
        start=(start := started(os.getpid())),
        folder=places / f"expoflow-{os.getuid()}-{os.getpid()}-{start}",
        slots=_groups(gpus(), max(1, width)) or (None,) * cores,
        idle=idle,
    )
    for folder in places.glob(f"expoflow-{os.getuid()}-*"):  # what a killed head and its killed hosts left
        if found := re.fullmatch(r"expoflow-\d+-(\d+)-(\d+)", folder.name):
            pid, start = map(int, found.groups())
            if not head.model_copy(update={"pid": pid, "start": start}).alive():
                shutil.rmtree(folder, ignore_errors=True)
    os.environ["EXPOFLOW_HEAD"] = head.model_dump_json()
    atexit.register(lambda: head.pid == os.getpid() and shutil.rmtree(head.folder, ignore_errors=True))


def _groups(devices: list[str], width: int) -> tuple[str, ...]:
    """The devices, `width` at a time, as CUDA_VISIBLE_DEVICES names them."""
    if 0 < len(devices) < width:
        raise ExpoflowError(
            f"a model of this config asks for {width} GPUs, here are {len(devices)}; correct its resources"
        )
    last = len(devices) - width
    return tuple(",".join(devices[at : at + width]) for at in range(0, last + 1, width))


def run(make: Callable[[], Task]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a task as they get ready, in lists that are not empty.

    `make` says what is to be done; it is called again, once, where a host died in the middle of the task, and
    can leave out what has been yielded. Raises what the work raised if that is an ExpoflowError, RuntimeError
    for other exceptions, and ExpoflowError when hosts cannot be kept alive.
    """
    announced = os.environ.get("EXPOFLOW_HEAD")
    if not announced or os.environ.get("EXPOFLOW_HOST") == "off":
        yield from _alone(make())
        return
    head = Head.model_validate_json(announced)
    _require(head)
    with _slot(head, make()) as slot:
        for again in (False, True):
            try:
                yield from slot.ask(make())
                return
            except _DiedError as death:
                _require(head)
                if again:
                    raise ExpoflowError(
                        f"{death}, and so did the one before; see {slot.log}, or set EXPOFLOW_HOST=off to do"
                        f" without hosts. Its log ends:\n{slot.tail()}"
                    ) from None
                print(f"error: {death}; starting another one. Its log ends:\n{slot.tail()}", flush=True)


def _require(head: Head) -> None:
    """A job whose Snakemake process has ended must end too, and leave nothing there."""
    if not head.alive():
        shutil.rmtree(head.folder, ignore_errors=True)
        raise ExpoflowError(
            f"snakemake (process {head.pid}) has ended, so its jobs end too; run snakemake again"
        )


def _alone(task: Task) -> Iterator[list[dict[str, Any]]]:
    held = Held()
    try:
        yield from filter(None, work(task.kind)(held, task.arguments))
    finally:
        held.clear()


def work(kind: str) -> Work:
    """The function that does the work of a kind of task."""
    if kind not in KINDS:
        raise ValueError(f"no kind of task is called '{kind}'; there are: {', '.join(KINDS)}")
    module, _, function = KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), function)


class _DiedError(Exception):
    """A host ended, or never answered."""


@contextmanager
def _slot(head: Head, task: Task) -> Iterator["Slot"]:
    """The free slot that suits the task best, for as long as the block runs; waits where none is free."""
    while True:
        with entered(head.folder) as folder:
            free = []
            for number in range(len(head.slots)):
                with suppress(BlockingIOError):
                    free.append(Slot(head, number, folder))
            best = min(free, key=lambda slot: slot.rank(task), default=None)
            for slot in free:
                if slot is not best:
                    os.close(slot.lock)
        if best:
            break
        time.sleep(0.2)
    try:
        yield best
    finally:
        os.close(best.lock)


class Slot:
    """A GPU or a core, kept from others until `lock` is closed, and the host that works there."""

    def __init__(self, head: Head, number: int, folder: int):
        """`folder` is the entered runtime folder. Raises BlockingIOError where the slot is not free."""
        self.head, self.number = head, number
        self.gpu = head.slots[number]
        self.socket = f"slot-{number}.sock"
        self.log = LOGS / f"slot-{number}.log"
        self.lock = os.open(f"slot-{number}", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=folder)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.lock)
            raise

    def rank(self, task: Task) -> int:
        """How well the slot suits the task, the best first."""
        if not (self.head.folder / self.socket).exists():
            return 2
        held = self.note()["held"]
        if held.get(task.kind) == task.key:
            return 0
        return 3 if task.kind in held or (held and self.gpu is not None) else 1

    def note(self) -> dict[str, Any]:
        """What is known of the host: `pid`, and by kind the key of what it has `held`."""
        try:
            return json.loads(os.pread(self.lock, 1 << 20, 0))
        except ValueError:  # nothing yet, or just being written
            return {"pid": None, "held": {}}

    def ask(self, task: Task) -> Iterator[list[dict[str, Any]]]:
        """Have the task done by the slot's host, started where there is none. Raises _DiedError if it dies."""
        connection, pid = self._connect()
        name = f"the engine host of slot {self.number} (process {pid})"
        problem = "has died"
        with connection, suppress(ConnectionError):
            lines = _lines(connection, pid)
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
                        print(text, end="", flush=True)
                    case {"error": [kind, text]}:
                        raise _known(kind, text)
                    case {"failed": text}:
                        raise RuntimeError(f"in {name}:\n{text}")
                    case {"done": _}:
                        return
        end_session(pid, self.head)
        raise _DiedError(f"{name} {problem}")

    def tail(self) -> str:
        """The end of the host's log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        return ""

    def _connect(self) -> tuple[socket.socket, int]:
        """A connection to the slot's host, and its process id."""
        with entered(self.head.folder) as folder:
            # By way of the descriptor, since the path of a socket may have 107 bytes at most.
            path = f"/proc/self/fd/{folder}/{self.socket}"
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            pid = self.note()["pid"]
            with suppress(FileNotFoundError, ConnectionRefusedError):
                connection.connect(path)
                if pid and not ended(pid):
                    return connection, pid
            if pid:  # it died while nobody was there
                end_session(pid, self.head)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with suppress(FileNotFoundError):
                os.unlink(self.socket, dir_fd=folder)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(path)
                listener.listen()
                connection.connect(path)
                return connection, self._start(listener.fileno())

    def _start(self, listener: int) -> int:
        """Start a host that takes over the listening socket; its process id."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        settings = {"head": self.head.model_dump(mode="json"), "slot": self.number, "listener": listener}
        device = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps({**settings, "kinds": KINDS}), json.dumps(sys.path)],
                env=os.environ | device,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[listener],
            )
        write_note(self.lock, process.pid, {})
        process.returncode = 0  # nobody waits for it: it lives on after this process
        return process.pid


def write_note(lock: int, pid: int, held: dict[str, str]) -> None:
    """Say in a slot's file who its host is and what it holds."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"pid": pid, "held": held}).encode(), 0)


@contextmanager
def entered(folder: Path) -> Iterator[int]:
    """The descriptor of the runtime folder, made where it is missing, with all others kept out of it."""
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # removed just now
            continue
        except NotADirectoryError:
            raise ExpoflowError(f"{folder} is no folder; delete it, or set TMPDIR to another place") from None
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(descriptor)
            raise ExpoflowError(
                f"{folder} is open to others than its user (owner {status.st_uid}, mode"
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


def end_session(leader: int, head: Head) -> None:
    """Kill what a host has started, and the host itself unless that is this process; wait until it has ended."""
    mark = f"EXPOFLOW_HEAD={head.model_dump_json()}\0".encode()
    killed = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
            mine = session == leader and mark in (process / "environ").read_bytes()
            if mine and (pid := int(process.name)) != os.getpid():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    for _ in range(1000):  # at most 10 seconds: one that hangs in a driver would hold up everything
        if all(map(ended, killed)):
            break
        time.sleep(0.01)


def allotted() -> int:
    """How many GPUs a model is spread over: those that a slot or a cluster gave this process; 1 if none did."""
    return max(1, len(gpus())) if "CUDA_VISIBLE_DEVICES" in os.environ else 1


def gpus() -> list[str]:
    """The CUDA devices that this process may use; found without importing torch."""
    if "+cpu" in metadata.version("torch"):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in visible.split(",") if device and not device.startswith("-")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def started(pid: int) -> int:
    """The start time of a process in clock ticks since boot; ProcessLookupError where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return int(text.rpartition(")")[2].split()[19])


def readable(descriptor: int, milliseconds: int = 0) -> bool:
    """Whether there is something to read, or an end, now or within a time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))


def ended(pid: int) -> bool:
    """Whether a process has ended, also if nobody has waited for it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    over = readable(descriptor)
    os.close(descriptor)
    return over


def _lines(connection: socket.socket, pid: int) -> Iterator[bytes]:
    """What a host says, line by line; an empty one first if that takes too long.

    ConnectionError at its end, which is seen by the process too: what it forked may keep the connection open.
    """
    waited, rest = 0, b""
    while True:
        # Second by second, so that the time in which this process is stopped does not count.
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


def _known(kind: str, text: str) -> ExpoflowError:
    """An error of expoflow's by the name of its class."""
    if kind == "ConfigError":
        return errors.ConfigError(text.split("\n"))
    return getattr(errors, kind, ExpoflowError)(text)
