"""The head of the jobs that run in one SLURM job. It starts their hosts itself.

This head is the Snakemake process that runs a group of jobs, each as a step of the SLURM job. When
a step ends, SLURM ends everything that it started. So no job could leave a host to the next one.
"""

import atexit
import json
import os
import shutil
import socket
import threading
from contextlib import suppress
from typing import NoReturn

from expoflow.hosts.head import Head, can_host
from expoflow.hosts.slot import entered
from expoflow.hosts.spawn import KEEPER, Order, spawn
from expoflow.system import gpus

DAY = 24 * 3600.0  # nobody else can use a SLURM job's GPUs, so hosts stay until it ends


def announce_job(name: str) -> None:
    """Make this process the head of the jobs in the SLURM job `name`, on its given GPUs.

    Without GPUs there are no hosts.
    """
    devices = gpus.given()
    if not can_host() or not devices:
        return
    head = Head.here(tuple(devices), DAY).model_copy(update={"job": name})
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with entered(head.folder) as folder:
        listener.bind(f"/proc/self/fd/{folder}/{KEEPER}")
    listener.listen()
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    os.environ["EXPOFLOW_HEAD"] = head.model_dump_json()
    atexit.register(lambda: head.is_here() and shutil.rmtree(head.folder, ignore_errors=True))


def _serve(listener: socket.socket) -> NoReturn:
    """Start what jobs ask for, as long as this process lives; runs in a thread."""
    while True:
        connection, _ = listener.accept()
        with connection, suppress(OSError, ValueError):  # a job that ended while it was asking
            _, (descriptor, *_), _, _ = socket.recv_fds(connection, 1, 1)
            try:
                with connection.makefile("r") as asked:
                    order = Order(*json.loads(asked.readline()))
                connection.sendall(f"{spawn(order, descriptor)}\n".encode())
            finally:
                os.close(descriptor)
