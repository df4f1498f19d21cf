"""Work that needs a loaded model, done by engine hosts: processes shared by a run's jobs.

The main Snakemake process announces itself as the `Head`. A job calls `run`: it takes a slot (a GPU
or a core), whose host keeps models loaded from job to job, and gets the rows of its task as they
are ready.

If there is no head (a cluster job, a bare script, `EXPOFLOW_HOST=off`), a job that was given GPUs
is the head of its own host, which lives as long as the job. There are two reasons for that: work on
a GPU starts processes that would otherwise run the job's own script first, and it leaves memory
behind that is freed only when the process ends. Without a GPU the same function does the work in
the job's own process.

Nothing here imports torch. The slots' files are in the head's runtime folder, which only its user
can enter. `slot-N` is locked (flock) while a job uses the slot, and says what its host holds.
`slot-N.sock` is the host's socket. The folder itself is locked while a process looks for a slot or
leaves one.
"""

import atexit
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from expoflow.hosts.count import Count
from expoflow.hosts.crash import tried_twice
from expoflow.hosts.head import Head, can_host
from expoflow.hosts.slot import end_host, free_slot
from expoflow.hosts.task import Held, Task, work
from expoflow.system import gpus


def run(make: Callable[[], Task]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a task as they are ready, in lists that are not empty.

    `make` returns the task. If a host dies during the task, `make` is called once more and can
    leave out what has been yielded. Raises the work's own error if that is an ExpoflowError,
    RuntimeError for other exceptions, and ExpoflowError if hosts keep dying.
    """
    task = make()
    count = Count(task)
    if (head := head_of_job()) is None:
        yield from count.passing(_alone(task))
        return
    with free_slot(head, task) as slot:
        yield from count.passing(tried_twice(slot, make))


def head_of_job() -> Head | None:
    """Return the head whose hosts work for this job; None if the job does the work itself."""
    announced = os.environ.get("EXPOFLOW_HEAD")
    if announced and os.environ.get("EXPOFLOW_HOST") != "off":
        head = Head.model_validate_json(announced)
        head.require()
        return head
    return _own_head() if can_host() and gpus.gpus() else None


@cache
def _own_head() -> Head:
    """Return this job as the head of one host, on the GPUs that the job was given."""
    head = Head.here((",".join(gpus.given()),))
    atexit.register(end_host, head)
    return head


def _alone(task: Task) -> Iterator[list[dict[str, Any]]]:
    held = Held()
    try:
        yield from filter(None, work(task.kind)(held, task.arguments))
    finally:
        held.clear()
