"""Where masked vectors wait until they are complete: small ones in memory, the others in files without a name.

A file is unlinked from its first moment, so nothing is left behind, whatever happens to the process. Masked vectors are
no secret from the coordinator. Must not know: rounds, hashes, manifests, what becomes of a vector.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from queries.errors import ServiceError

SMALL_BYTES = 1 << 20
"""An upload below this waits in memory ..."""
MEMORY_BYTES = 16 << 20
"""... while all that do so need no more than this together."""
IDLE_BYTES = 1 << 30
"""Files that nobody uses are kept up to this size together."""
READ_BYTES = 1 << 20


class Stored(Protocol):
    """The bytes of one upload, used by one thread at a time. Raises ServiceError where the disk fails."""

    def write(self, chunk: bytes | memoryview) -> None:
        """Append; the bytes may be kept where they are."""

    def read(self) -> Iterator[memoryview]:
        """Yield all that was written, at most 1 MiB at a time; each is valid until the next."""

    def close(self) -> None:
        """Give the space back. Once only."""


class Spool:
    """The storage of a process, whatever rounds it serves. Uploads may be opened and closed by different threads.

    Files are kept and written over by later uploads: the system then has the pages at hand, and getting fresh ones is
    what costs most about writing. Kept is page cache, which the system may take away, and space on the disk, which is
    given back when there is no more of it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Keep files in `folder`, by default where the system keeps temporary files."""
        self.folder = folder
        self._lock = threading.Lock()
        self._memory_left = MEMORY_BYTES
        self._idle: list[tuple[int, BinaryIO]] = []  # with their sizes
        self._idle_left = IDLE_BYTES

    def open(self, size: int) -> Stored:
        """Return empty storage for an upload of `size` bytes. Raises ServiceError."""
        with self._lock:
            if size < SMALL_BYTES and size <= self._memory_left:
                self._memory_left -= size
                return _Memory(self, size)
            if self._idle:
                kept, file = self._idle.pop()
                self._idle_left += kept
                return _File(self, file, kept)
        with _disk(self.folder):
            return _File(self, cast("BinaryIO", tempfile.TemporaryFile(dir=self.folder, buffering=0)), 0)

    def return_memory(self, size: int) -> None:
        """Take back what an upload in memory needed."""
        with self._lock:
            self._memory_left += size

    def return_file(self, size: int, file: BinaryIO) -> None:
        """Keep a file of `size` bytes for another upload, or remove it."""
        with self._lock:
            if size <= self._idle_left:
                self._idle_left -= size
                self._idle.append((size, file))
                return
        file.close()

    def shrink(self) -> None:
        """Remove the files that are kept."""
        with self._lock:
            idle, self._idle, self._idle_left = self._idle, [], IDLE_BYTES
        for _, file in idle:
            file.close()


@cache
def spool_in(folder: Path | None) -> Spool:
    """Return the one spool of this process in a folder, by default in that for temporary files."""
    return Spool(folder)


class _Memory:
    def __init__(self, spool: Spool, size: int) -> None:
        self._spool = spool
        self._size = size
        self._chunks: list[bytes | memoryview] = []

    def write(self, chunk: bytes | memoryview) -> None:
        self._chunks.append(chunk)

    def read(self) -> Iterator[memoryview]:
        return map(memoryview, self._chunks)

    def close(self) -> None:
        self._chunks = []
        self._spool.return_memory(self._size)


class _File:
    def __init__(self, spool: Spool, file: BinaryIO, size: int) -> None:
        self._spool = spool
        self._file = file
        self._size = size  # of what an earlier upload left in it
        self._written = 0
        self._failed = False
        self._file.seek(0)

    def write(self, chunk: bytes | memoryview) -> None:
        view = memoryview(chunk)
        try:
            with _disk(self._spool.folder):
                while view:
                    written = self._file.write(view)
                    view = view[written:]
        except ServiceError:
            self._failed = True
            self._spool.shrink()
            raise
        self._written += len(chunk)

    def read(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(READ_BYTES, self._written)))
        left = self._written
        with _disk(self._spool.folder):
            self._file.seek(0)
        while left:
            part = buffer[: min(left, len(buffer))]
            with _disk(self._spool.folder):
                self._fill(part)
            yield part
            left -= len(part)

    def _fill(self, part: memoryview) -> None:
        done = 0
        while done < len(part):
            got = self._file.readinto(part[done:])  # type: ignore[attr-defined]  # typing's BinaryIO lacks it
            if not got:
                raise OSError("the file is shorter than what was written")
            done += got

    def close(self) -> None:
        if self._failed:
            self._file.close()
        else:
            self._spool.return_file(max(self._size, self._written), self._file)


@contextmanager
def _disk(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"the coordinator cannot keep an upload: {(error.strerror or str(error)).lower()}",
            hint=f"see to the disk of {folder or tempfile.gettempdir()}; the institution is asked again next time",
        ) from error
