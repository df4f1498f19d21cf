"""Work that wants a loaded model, done by engine hosts: processes that the jobs of one local run share.

The main Snakemake process announces itself as the `Head`. A job asks with `run`: it takes a slot (a GPU, or a
core), whose host keeps models loaded from job to job, and gets the rows of its task as they get ready.
Where nobody announced itself (a cluster job, a bare script, `EXPOFLOW_HOST=off`) the very same function
does the work in the job's own process.

Nothing here imports torch. The slots' files lie in the head's runtime folder, which only its user can enter:
`slot-N` is locked (flock) while a job uses the slot and says what its host holds; `slot-N.sock` is the host's
socket. The folder itself is locked while somebody looks for a slot or leaves one.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

from expoflow.hosts.crash import tried_twice
from expoflow.hosts.head import Head
from expoflow.hosts.slot import free_slot
from expoflow.hosts.task import Held, Task, work


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
    head.require()
    with free_slot(head, make()) as slot:
        yield from tried_twice(slot, make)


def _alone(task: Task) -> Iterator[list[dict[str, Any]]]:
    held = Held()
    try:
        yield from filter(None, work(task.kind)(held, task.arguments))
    finally:
        held.clear()
