"""The work of one task, shared out among those GPUs of a local run that nobody else wants.

A job has one ticket at a time. What it is given takes a share: of the work that all who wait could cut, as much as falls to one of
the GPUs that are free. So a job whose neighbours want the other GPUs keeps its work together, and one alone spreads it.
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

# Seconds in which a share that is given up ends. One whose host does not read, since it still loads what was given up before, ends
# with this process.
ENDING = 10

Make = Callable[[Sequence[str] | None], Task]
Take = Callable[[list[dict[str, Any]]], None]


def run_shares(make: Make, items: Sequence[str], most: int, take: Take) -> None:
    """Have a task done, in at most as many shares as `most` says, and give its rows to `take` as they get ready.

    `make` says what is to be done for some of the items, None being all; it is called again, once, if a host died in the middle of
    them, and can leave out what `take` has been given. `take` is called by one thread at a time. On cores, and in a SLURM job, the
    task stays whole. Raises what `client.run` raises, for the first share that fails; the others are given up then.
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
    """A task that several slots do; `todo` are the parts that nobody has begun."""

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
        """Take slots until all is done."""
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
                    thread.join(1)  # an interrupt that reaches another thread is seen only between two calls
        except GivenUpError:  # one of the threads has failed
            pass
        finally:
            self.given_up.set()
            for thread in threads:
                thread.join(ENDING)
        if self.failed:
            raise self.failed[0]

    def _work(self, slot: Slot, share: list[Sequence[str]]) -> None:
        """In a thread: have a share done, and leave the slot."""
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
