"""One member's masked vector on its way into the sum: checked while it streams, added only when complete and verified.

Must not know: what the coordinator does with the sum, where bytes are kept (`spool`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
from blake3 import blake3

from queries.errors import CohortiumError
from trust.secagg.agent import LARGEST_CHUNK
from trust.secagg.masks import Ring
from trust.secagg.parameters import RoundParameters
from trust.secagg.refusals import BadUpload, LateMessage, OutOfStep, ProtocolViolation
from trust.secagg.spool import Spool, Stored

Accept = Callable[[bytes, bytes, Iterator[Ring]], None]
"""(manifest, BLAKE3 hash of the vector's bytes, the vector piece by piece) -> None, or a ProtocolViolation."""


class UploadSink:
    """Takes chunks, then the manifest. Holds no more than a chunk; one that is never finished leaves the sum untouched.

    `feed` and `finish` may be called from any thread, one at a time. `drop` may be called at any moment and does not
    wait: while another call is at work the space is given back when that ends.
    """

    def __init__(
        self,
        parameters: RoundParameters,
        member: str,
        *,
        spool: Spool,
        is_open: Callable[[], bool],
        accept: Accept,
        blame: Callable[[ProtocolViolation], ProtocolViolation],
    ) -> None:
        self._member = member
        self._size = parameters.vector_bytes
        self._dtype = parameters.dtype
        self._spool = spool
        self._stored: Stored | None = None
        self._hash = blake3()
        self._received = 0
        self._is_open = is_open
        self._accept = accept
        self._blame = blame
        self._turn = threading.Lock()
        self._over = False

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes of the vector: at least one whole entry, at most 1 MiB. They must not change any more.

        Raises BadUpload, after which the upload is void; OutOfStep once it is void or finished; LateMessage once the
        round has closed uploads; ServiceError where the chunk cannot be kept, after which the upload is void and
        nobody is to blame.
        """
        with self._working():
            if not chunk or len(chunk) > LARGEST_CHUNK or len(chunk) % self._dtype.itemsize:
                raise self._bad(
                    f"a chunk of {len(chunk)} bytes, which is empty, no whole number of entries or above 1 MiB"
                )
            if self._received + len(chunk) > self._size:
                raise self._bad(f"more than the {self._size} bytes that its masked vector has")
            if self._stored is None:
                self._stored = self._spool.open(self._size)
            self._stored.write(chunk)
            self._hash.update(chunk)
            self._received += len(chunk)

    def finish(self, manifest: bytes) -> None:
        """Check the manifest against what arrived and add the vector to the sum. Works through the whole vector.

        Raises BadUpload, BadSignature, MalformedMessage, and what `feed` raises; the upload is then void.
        """
        with self._working():
            if self._stored is None or self._received != self._size:
                raise self._bad(f"{self._received} of the {self._size} bytes of its masked vector")
            try:
                self._accept(manifest, self._hash.digest(), self._pieces(self._stored))
            except ProtocolViolation as violation:
                raise self._blame(violation) from None
            self._over = True

    def drop(self) -> None:
        """Forget the vector, as when the member vanished. Whatever follows is refused."""
        self._over = True
        if self._turn.acquire(blocking=False):
            try:
                self._give_back()
            finally:
                self._turn.release()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Take a turn; whatever goes wrong in it voids the upload."""
        try:
            with self._turn:
                if not self._is_open():
                    message = f"the round takes no more of the upload of institution {self._member}"
                    raise LateMessage(message, party=self._member)
                if self._over:
                    raise OutOfStep(f"the upload of institution {self._member} is over", party=self._member)
                try:
                    yield
                except CohortiumError:
                    self._over = True
                    raise
        finally:
            if self._over:  # by this turn, or by a `drop` during it, which did not wait
                self.drop()

    def _pieces(self, stored: Stored) -> Iterator[Ring]:
        for piece in stored.read():
            yield cast("Ring", np.frombuffer(piece, dtype=self._dtype))

    def _give_back(self) -> None:
        if self._stored is not None:
            self._stored.close()
            self._stored = None

    def _bad(self, what: str) -> ProtocolViolation:
        return self._blame(BadUpload(f"institution {self._member} uploaded {what}", party=self._member))
