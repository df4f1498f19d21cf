"""One output file, written in place by several threads, past the page cache where it is large."""

import errno
import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

PAGE = 4096  # direct writes want offset, length and memory in multiples of this
LARGE = 1 << 24  # bytes; smaller files stay in the page cache for who reads them next
DIRECT = getattr(os, "O_DIRECT", 0)


class Output:
    """A new file of `size` bytes.

    Large files are written directly (O_DIRECT): filling the page cache with them costs several times the
    CPU of the extrapolation, and throws the inputs out of it. Where a file system cannot do that they are
    written the ordinary way. Raises FileExistsError where the file exists.
    """

    def __init__(self, path: Path, size: int):
        self.size, self.lock = size, threading.Lock()
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        os.ftruncate(self.descriptor, size)
        if size >= LARGE:
            with suppress(OSError):
                self._set_direct(True)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data`; one call of the system may write less, and at most 2 GiB.

        For a direct write `data` begins at a page and both its length and `offset` are multiples of PAGE;
        bytes beyond the file's size are cut off by `finish`.
        """
        data, refused = memoryview(data), False
        while data:
            try:
                count = os.pwrite(self.descriptor, data, offset)
            except OSError as error:
                # The file system takes no direct writes after all, or not from where a short one ended.
                if error.errno != errno.EINVAL or refused:
                    raise
                self._set_direct(False)
                refused = True
                continue
            data, offset = data[count:], offset + count

    def finish(self) -> None:
        """Bring the file to disk, at its size, and close it."""
        os.ftruncate(self.descriptor, self.size)
        os.fsync(self.descriptor)
        self.close()

    def close(self) -> None:
        """Close the file as it is; again is no error."""
        with self.lock:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1

    def _set_direct(self, on: bool) -> None:
        with self.lock:
            flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags | DIRECT if on else flags & ~DIRECT)
