"""The queue for slots: what a GPU holds is used first, and needless loading is avoided."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from expoflow.files.records import Record

# Seconds before something that a GPU holds is replaced, or is loaded on a second GPU. In that time
# another job that wants it may come: Snakemake starts one when another ends, which takes a few
# seconds.
PATIENCE = 5.0
LAST = "score"  # comes after queued generations, so the reward model takes a GPU from an engine only once


class Wish(Record):
    """A job's wish for `slots` GPUs (or one core), which hold or will hold the `key` of a `kind`.

    `parts` is the number of parts into which its work can be divided. `further` means that the job
    is already at work elsewhere; it then ends nothing.
    """

    kind: str
    key: str = ""
    slots: int = 1
    parts: int = 1
    further: bool = False


@dataclass(frozen=True)
class Holder:
    """What is on some slots: a host that holds keys by kind, or a job that will have them soon."""

    slots: tuple[int, ...]
    held: Mapping[str, str]

    def has(self, wish: Wish) -> bool:
        """Return whether it has what is wished for."""
        return self.held.get(wish.kind) == wish.key


@dataclass(frozen=True)
class Gift:
    """Slots for a wish; `patient`: they cost a load that a job that comes soon could save."""

    slots: tuple[int, ...]
    patient: bool = False


def assign(
    slots: int, free: Collection[int], holders: Sequence[Holder], wishes: Sequence[Wish], gpus: bool = True
) -> dict[int, Gift]:
    """Return the slots that each wish gets now, by its place in the order of arrival.

    `slots` is the number of all slots. Without `gpus` they are cores: a core's host holds one
    object per kind, a GPU's host holds one in all. Idle hosts first serve wishes for what they
    hold. Then come wishes for what nobody holds, with scores last, and then wishes for a second
    copy. A further share of a job gets no GPU that holds something else. A wish for several GPUs
    keeps those that are free until all of them are.
    """
    left, given = set(free), {}
    waiting = dict(enumerate(wishes))
    for place, wish in enumerate(wishes):
        for holder in holders:
            if holder.has(wish) and len(holder.slots) == wish.slots and left.issuperset(holder.slots):
                given[place] = Gift(holder.slots)
                left -= set(holder.slots)
                del waiting[place]
                break
    holders = list(holders)
    while waiting and left:
        copies = {place: any(each.has(wish) for each in holders) for place, wish in waiting.items()}
        place = min(waiting, key=lambda place: (copies[place], waiting[place].kind == LAST, place))
        wish = waiting.pop(place)
        costs = {window: _cost(window, wish, holders, gpus) for window in _windows(slots, wish.slots)}
        if wish.further:
            costs = {window: cost for window, cost in costs.items() if cost < LOSS}
        if not costs:
            continue
        best = min(costs, key=lambda window: (-len(left.intersection(window)), costs[window], window))
        if left.issuperset(best):
            given[place] = Gift(best, gpus and (copies[place] or costs[best] >= LOSS))
            holders = [each for each in holders if not set(each.slots) & set(best)]
            holders.append(Holder(best, {wish.kind: wish.key}))
        left -= set(best)
    return given


LOSS = 3  # from this cost on, something that is loaded is lost


def _cost(window: tuple[int, ...], wish: Wish, holders: Sequence[Holder], gpus: bool) -> int:
    """Return the cost of giving some slots to a wish."""
    there = [each for each in holders if set(each.slots) & set(window)]
    if not there:
        return 2  # a host has to be started
    if [each.slots for each in there] != [window]:
        return LOSS + 1  # hosts have to be ended
    held = there[0].held
    return LOSS if wish.kind in held or (held and gpus) else 1


def _windows(slots: int, width: int) -> Iterator[tuple[int, ...]]:
    """Yield fixed groups of neighbouring slots, so that a host with several GPUs is found again."""
    for first in range(0, slots - width + 1, width):
        yield tuple(range(first, first + width))


class Ticket:
    """A job's wish in the runtime folder, which the others see as long as this process lives.

    `since` is when the job began to wait, by time.monotonic(); by default it is now.
    """

    def __init__(self, wish: Wish, since: float | None = None):
        self.wish = wish
        self.since = time.monotonic() if since is None else since
        self.name = f"wish-{time.time_ns():020d}-{os.getpid()}-{threading.get_ident()}"
        self._lock: int | None = None

    def show(self, folder: int) -> None:
        """Write the wish into the entered folder, again if the folder was removed meanwhile."""
        if self._lock is not None and os.fstat(self._lock).st_nlink:
            return
        self.drop(folder)
        self._lock = os.open(self.name, os.O_RDWR | os.O_CREAT, 0o600, dir_fd=folder)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, self.wish.model_dump_json().encode())

    def all(self, folder: int) -> dict[str, Wish]:
        """Return the wishes of all waiting jobs, in the order of arrival, including this one."""
        found = {}
        for name in sorted(name for name in os.listdir(folder) if name.startswith("wish-")):
            if name == self.name:
                found[name] = self.wish
            elif wish := _read(name, folder):
                found[name] = wish
        return found

    def drop(self, folder: int | None = None) -> None:
        """Stop waiting."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if folder is not None:
            with suppress(FileNotFoundError):
                os.unlink(self.name, dir_fd=folder)


def _read(name: str, folder: int) -> Wish | None:
    """Return another job's wish; if that job has ended, remove it and return None."""
    lock = os.open(name, os.O_RDWR, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Wish.model_validate(json.loads(os.pread(lock, 1 << 16, 0)))
    else:
        os.unlink(name, dir_fd=folder)
        return None
    finally:
        os.close(lock)
