"""Where masked vectors wait until they are complete: small ones in memory, the others in files without a name.

A file is unlinked from its first moment, so nothing is left behind, whatever happens to the process. Masked vectors are
no secret from the coordinator. Must not know: hashes, manifests, what becomes of a vector.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from queries.errors import ServiceError

SMALL_BYTES = 1 << 20
"""An upload below this waits in memory ..."""
MEMORY_BYTES = 16 << 20
"""... while all of a round that do so need no more than this together."""
READ_BYTES = 1 << 20


class Stored(Protocol):
    """The bytes of one upload, used by one thread at a time. Raises ServiceError where the disk fails."""

    def write(self, chunk: bytes) -> None:
        """Append."""

    def read(self) -> Iterator[memoryview]:
        """Yield all that was written, at most 1 MiB at a time; each is valid until the next."""

    def close(self) -> None:
        """Give the space back. Once only."""


class Spool:
    """The storage of one round. Uploads may be opened and closed by different threads."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep files in `folder`, by default where the system keeps temporary files."""
        self._folder = folder
        self._lock = threading.Lock()
        self._memory_left = MEMORY_BYTES
        self._free: list[BinaryIO] = []
        self._closed = False

    def open(self, size: int) -> Stored:
        """Return empty storage for an upload of `size` bytes. Raises ServiceError."""
        with self._lock:
            if size < SMALL_BYTES and size <= self._memory_left:
                self._memory_left -= size
                return _Memory(self, size)
            if self._free:
                return _File(self, self._free.pop())
        with _disk(self._folder):
            return _File(self, cast("BinaryIO", tempfile.TemporaryFile(dir=self._folder, buffering=0)))

    def close(self) -> None:
        """Give all space back, now or, of an upload that is open, when it is closed."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for file in free:
            file.close()

    def _return_memory(self, size: int) -> None:
        with self._lock:
            self._memory_left += size

    def _return_file(self, file: BinaryIO) -> None:
        """Keep a file for the next upload of the round: writing over its pages is faster than getting new ones."""
        with self._lock:
            if not self._closed:
                self._free.append(file)
                return
        file.close()


class _Memory:
    def __init__(self, spool: Spool, size: int) -> None:
        self._spool = spool
        self._size = size
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def read(self) -> Iterator[memoryview]:
        return map(memoryview, self._chunks)

    def close(self) -> None:
        self._chunks = []
        self._spool._return_memory(self._size)


class _File:
    def __init__(self, spool: Spool, file: BinaryIO) -> None:
        self._spool = spool
        self._file = file
        self._written = 0
        self._file.seek(0)

    def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        with _disk(self._spool._folder):
            while view:
                written = self._file.write(view)
                view = view[written:]
        self._written += len(chunk)

    def read(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(READ_BYTES, self._written)))
        left = self._written
        with _disk(self._spool._folder):
            self._file.seek(0)
        while left:
            part = buffer[: min(left, len(buffer))]
            with _disk(self._spool._folder):
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
        self._spool._return_file(self._file)


@contextmanager
def _disk(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"the coordinator cannot keep an upload: {(error.strerror or str(error)).lower()}",
            hint=f"see to the disk of {folder or tempfile.gettempdir()}; the institution is asked again next time",
        ) from error
