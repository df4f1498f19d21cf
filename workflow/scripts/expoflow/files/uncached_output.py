"""One output file, written in place by several threads. Large files bypass the page cache."""

import errno
import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

PAGE = 4096  # direct writes need offset, length and memory in multiples of this
LARGE = 1 << 24  # bytes; smaller files stay in the page cache for their next reader
DIRECT = getattr(os, "O_DIRECT", 0)


class Output:
    """A new file of `size` bytes.

    Large files are written directly (O_DIRECT). Filling the page cache with them would take several
    times the CPU time of the extrapolation and evict the inputs. If the file system does not
    support direct writes, they are written the ordinary way. Raises FileExistsError if the file
    exists.
    """

    def __init__(self, path: Path, size: int):
        self.size, self.lock = size, threading.Lock()
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        os.ftruncate(self.descriptor, size)
        if size >= LARGE:
            with suppress(OSError):
                self._set_direct(True)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data`. A single system call may write only part of it, and at most 2 GiB.

        For a direct write `data` must start at a page, and its length and `offset` must be
        multiples of PAGE. `finish` cuts off bytes beyond the file's size.
        """
        data, refused = memoryview(data), False
        while data:
            try:
                count = os.pwrite(self.descriptor, data, offset)
            except OSError as error:
                # The file system does not accept direct writes after all, or not from where a short
                # write ended.
                if error.errno != errno.EINVAL or refused:
                    raise
                self._set_direct(False)
                refused = True
                continue
            data, offset = data[count:], offset + count

    def finish(self) -> None:
        """Truncate the file to its size, sync it to disk and close it."""
        os.ftruncate(self.descriptor, self.size)
        os.fsync(self.descriptor)
        self.close()

    def close(self) -> None:
        """Close the file as it is. Closing it again is no error."""
        with self.lock:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1

    def _set_direct(self, on: bool) -> None:
        with self.lock:
            flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags | DIRECT if on else flags & ~DIRECT)
