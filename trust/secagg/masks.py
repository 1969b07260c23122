"""Key streams that hide vectors: AES-256-CTR, added to or subtracted from ring elements in place.

Where a mask's key comes from is in `keys`; this module turns a source of keys into a stream of any length. A key serves
one segment of 64 MiB. Must not know: rounds, members, messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

SEGMENT_BYTES = 64 << 20
BLOCK_BYTES = 256 << 10  # what one pass handles: small enough that vector, key stream and zeros stay in cache
_ZEROS = bytes(BLOCK_BYTES)
_COUNTER = bytes(16)

Ring: TypeAlias = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
SegmentKey: TypeAlias = Callable[[int], bytes]
"""Segment number (from 0) -> 32-byte AES key."""


class MaskStream:
    """One mask, read from its beginning. `sign` +1 adds it to what `apply` is given, -1 subtracts it."""

    def __init__(self, segment_key: SegmentKey, sign: int) -> None:
        self._segment_key = segment_key
        self._combine = np.add if sign > 0 else np.subtract
        self._segment = 0
        self._left = 0
        self._cipher: CipherContext | None = None

    def _read_into(self, keystream: memoryview) -> None:
        done = 0
        while done < len(keystream):
            if not self._left:
                key = self._segment_key(self._segment)
                self._cipher = Cipher(algorithms.AES(key), modes.CTR(_COUNTER)).encryptor()
                self._segment, self._left = self._segment + 1, SEGMENT_BYTES
            size = min(self._left, len(keystream) - done)
            assert self._cipher is not None  # noqa: S101 - for the type checker: `_left` > 0 implies a cipher
            self._cipher.update_into(memoryview(_ZEROS)[:size], keystream[done : done + size])
            self._left -= size
            done += size

    def apply(self, block: Ring, keystream: bytearray) -> None:
        """Combine the next `block.nbytes` bytes of the stream into `block`; `keystream` is working space."""
        self._read_into(memoryview(keystream)[: block.nbytes])
        other = np.frombuffer(keystream, dtype=block.dtype, count=len(block))
        self._combine(block, other, out=block)


def apply_masks(vector: Ring, streams: Sequence[MaskStream], keystream: bytearray) -> None:
    """Advance every stream over `vector` and combine all of them into it, in place, block by block.

    `keystream` must hold min(BLOCK_BYTES, vector.nbytes). Modular arithmetic of the ring is numpy's own wrap-around.
    """
    step = BLOCK_BYTES // vector.itemsize
    for start in range(0, len(vector), step):
        block = vector[start : start + step]
        for stream in streams:
            stream.apply(block, keystream)
