"""Start of a host's process: by the job that needs it, or by its head (`hosts.keeper`)."""

import json
import socket
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from expoflow.errors import ExpoflowError

KEEPER = "keeper.sock"  # in the runtime folder of a head that starts hosts itself


class Order(NamedTuple):
    """A process to start: its command, environment, working directory and output file.

    The descriptor of a listening socket is appended to the command. Without `log` the output is
    that of the process which starts it.
    """

    command: list[str]
    environment: dict[str, str]
    cwd: str
    log: str | None = None


def spawn(order: Order, listener: int) -> int:
    """Start the process in its own session; return its process id."""
    with _open(order.log) as log:
        process = subprocess.Popen(
            [*order.command, str(listener)],
            env=order.environment,
            cwd=order.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[listener],
        )
    process.returncode = 0  # nobody waits for it: it outlives this process
    return process.pid


def _open(log: str | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    return open(log, "ab")


def ask(folder: int, order: Order, listener: int) -> int:
    """Make the head start the process; return its process id. Raises ExpoflowError if that fails.

    `folder` is the descriptor of the runtime folder.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as keeper:
        keeper.connect(f"/proc/self/fd/{folder}/{KEEPER}")
        socket.send_fds(keeper, [b"."], [listener])
        keeper.sendall(json.dumps(order).encode() + b"\n")
        with keeper.makefile("r") as answer:
            said = answer.readline()
    if not said:
        raise ExpoflowError(
            "no engine host could be started; the log of this SLURM job in results/logs/slurm says why"
        )
    return int(said)
