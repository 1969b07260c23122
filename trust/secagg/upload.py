"""One member's masked vector on its way into the sum: checked while it streams, added only when complete and verified.

Must not know: what the coordinator does with the sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from trust.secagg.agent import LARGEST_CHUNK
from trust.secagg.masks import Ring
from trust.secagg.parameters import RoundParameters
from trust.secagg.refusals import BadUpload, LateMessage, OutOfStep, ProtocolViolation

Accept = Callable[[bytes, bytes, Ring], None]
"""(manifest, SHA-256 of the vector's bytes, vector) -> None, or a ProtocolViolation."""


class UploadSink:
    """Takes chunks, then the manifest. Holds one vector; a sink that is never finished leaves the sum untouched."""

    def __init__(
        self,
        parameters: RoundParameters,
        member: str,
        *,
        is_open: Callable[[], bool],
        accept: Accept,
        blame: Callable[[ProtocolViolation], ProtocolViolation],
    ) -> None:
        self._member = member
        self._size = parameters.vector_bytes
        self._element = parameters.dtype.itemsize
        self._vector: Ring | None = np.empty(parameters.length, dtype=parameters.dtype)
        self._bytes = self._vector.view(np.uint8).data
        self._hash = hashlib.sha256()
        self._received = 0
        self._is_open = is_open
        self._accept = accept
        self._blame = blame

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the vector: at least one whole entry, at most 1 MiB.

        Raises BadUpload, after which the upload is void; OutOfStep once it is void or finished; LateMessage once the
        round has closed uploads.
        """
        self._check_open()
        if not chunk or len(chunk) > LARGEST_CHUNK or len(chunk) % self._element:
            raise self._void(
                f"a chunk of {len(chunk)} bytes, which is empty, no whole number of entries or above 1 MiB"
            )
        end = self._received + len(chunk)
        if end > self._size:
            raise self._void(f"more than the {self._size} bytes that its masked vector has")
        self._bytes[self._received : end] = chunk
        self._hash.update(chunk)
        self._received = end

    def finish(self, manifest: bytes) -> None:
        """Check the manifest against what arrived and add the vector to the sum.

        Raises BadUpload, BadSignature, MalformedMessage, and what `feed` raises; the upload is then void.
        """
        vector = self._check_open()
        if self._received != self._size:
            raise self._void(f"{self._received} of the {self._size} bytes of its masked vector")
        try:
            self._accept(manifest, self._hash.digest(), vector)
        except ProtocolViolation as violation:
            raise self._blame(violation) from None
        finally:
            self.drop()

    def drop(self) -> None:
        """Forget the vector, as when the member vanished. Whatever follows is refused."""
        self._vector = None
        self._bytes = memoryview(b"")

    def _check_open(self) -> Ring:
        if not self._is_open():
            raise LateMessage(
                f"the round takes no more of the upload of institution {self._member}", party=self._member
            )
        if self._vector is None:
            raise OutOfStep(f"the upload of institution {self._member} is over", party=self._member)
        return self._vector

    def _void(self, what: str) -> ProtocolViolation:
        self.drop()
        return self._blame(BadUpload(f"institution {self._member} uploaded {what}", party=self._member))
