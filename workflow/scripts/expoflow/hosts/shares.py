"""The work of one task, shared out among those GPUs of a local run that nobody else wants.

A job has one ticket at a time. The slots that it is given take a share of the work. The share is
the divisible work of all waiting jobs, divided by the number of free GPUs. So a job whose
neighbours want the other GPUs keeps its work together, and a job that is alone spreads it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from expoflow.hosts import client
from expoflow.hosts.count import Count
from expoflow.hosts.crash import GivenUpError, tried_twice
from expoflow.hosts.head import Head
from expoflow.hosts.slot import Slot, awaited, wish_for
from expoflow.hosts.task import Task
from expoflow.hosts.waiting import Ticket, Wish

# Seconds in which a share that is given up ends. If its host does not read, because it is still
# loading for the abandoned share, it ends with this process.
ENDING = 10

Make = Callable[[Sequence[str] | None], Task]
Take = Callable[[list[dict[str, Any]]], None]


def run_shares(make: Make, items: Sequence[str], most: int, take: Take) -> None:
    """Do a task in at most `most` shares, and pass its rows to `take` as they are ready.

    `make` returns the task for some of the items, or for all if it gets None. If a host dies,
    `make` is called once more for the same items, and can leave out what `take` has been given. One
    thread at a time calls `take`. On cores, and in a SLURM job, the task is not divided. Raises
    what `client.run` raises, for the first share that fails; the others are then given up.
    """
    head, parts = client.head_of_job(), min(most, len(items))
    if parts > 1 and head is not None and len(head.slots) > 1 and head.slots[0] is not None and not head.job:
        whole = make(None)
        wish = wish_for(head, whole)
        if len(head.slots) >= 2 * wish.slots:
            Shares(head, wish, make, [items[at::parts] for at in range(parts)], take, Count(whole)).run()
            return
    for rows in client.run(lambda: make(None)):
        take(rows)


class Shares:
    """A task that several slots do; `todo` are the parts that are not begun."""

    def __init__(
        self, head: Head, wish: Wish, make: Make, todo: list[Sequence[str]], take: Take, count: Count
    ):
        self.head, self.wish, self.make, self.todo, self.take = head, wish, make, todo, take
        self.count = count
        self.whole = len(todo)
        self.lock = threading.Lock()
        self.given_up = threading.Event()
        self.failed: list[BaseException] = []

    def run(self) -> None:
        """Take slots until everything is done."""
        since = time.monotonic()
        threads: list[threading.Thread] = []
        try:
            while self.todo:
                asked = self.wish.model_copy(update={"parts": len(self.todo), "further": bool(threads)})
                slot = awaited(self.head, Ticket(asked, since), self.given_up)
                share, self.todo = self.todo[: slot.parts], self.todo[slot.parts :]
                threads.append(threading.Thread(target=self._work, args=(slot, share), daemon=True))
                threads[-1].start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(1)  # interrupts that reach another thread are seen only between calls
        except GivenUpError:  # one of the threads has failed
            pass
        finally:
            self.given_up.set()
            for thread in threads:
                thread.join(ENDING)
        if self.failed:
            raise self.failed[0]

    def _work(self, slot: Slot, share: list[Sequence[str]]) -> None:
        """Do a share, then leave the slot; runs in a thread."""
        items = None if len(share) == self.whole else [item for part in share for item in part]
        try:
            with closing(tried_twice(slot, lambda: self.make(items))) as found:
                for rows in found:
                    with self.lock:
                        self.take(rows)
                        self.count.add(rows)
        except GivenUpError:
            pass
        except BaseException as error:
            self.failed.append(error)
            self.given_up.set()
        finally:
            slot.leave()
