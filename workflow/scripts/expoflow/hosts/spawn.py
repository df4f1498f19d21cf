"""How the process of a host begins: started by the job that wants it, or for the job by its head (`hosts.keeper`)."""

import json
import socket
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from expoflow.errors import ExpoflowError

KEEPER = "keeper.sock"  # in the runtime folder of a head that starts hosts itself


class Order(NamedTuple):
    """A process that is wanted: its command, environment and working directory, and the file that its output goes to.

    The command's last argument will be the descriptor of a listening socket. Without `log` its output is that of the process
    which starts it.
    """

    command: list[str]
    environment: dict[str, str]
    cwd: str
    log: str | None = None


def spawn(order: Order, listener: int) -> int:
    """Start the process in a session of its own; its process id."""
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
    process.returncode = 0  # nobody waits for it: it lives on after this process
    return process.pid


def _open(log: str | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    return open(log, "ab")


def ask(folder: int, order: Order, listener: int) -> int:
    """Have the head start the process; its process id. `folder` is the descriptor of the runtime folder.

    Raises ExpoflowError if it cannot.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as keeper:
        keeper.connect(f"/proc/self/fd/{folder}/{KEEPER}")
        socket.send_fds(keeper, [b"."], [listener])
        keeper.sendall(json.dumps(order).encode() + b"\n")
        with keeper.makefile("r") as answer:
            said = answer.readline()
    if not said:
        raise ExpoflowError(
            "no engine host could be started: the Snakemake process of this SLURM job says why in results/logs/slurm"
        )
    return int(said)
