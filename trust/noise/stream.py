"""Random bits: AES-256 in counter mode under a key that serves one vector only.

Must not know: what is drawn from the bits.
"""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

KEY_BYTES = 32


class Stream:
    """The bytes AES-256-CTR(key, counter from 0) as little-endian words, in the order they are asked for.

    One key gives one stream, on every machine. Whoever draws noise makes a fresh one for every vector: a stream is
    neither kept nor shared, so two processes or threads never hold the same (a key kept across fork repeats noise).
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a noise key has {KEY_BYTES} bytes")
        self._cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    @classmethod
    def fresh(cls) -> Stream:
        """Return a stream under a new key of the operating system's generator."""
        return cls(os.urandom(KEY_BYTES))

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        return self._cipher.update(bytes(count))

    def words16(self, count: int) -> NDArray[np.uint16]:
        """Return the next `count` 16-bit words."""
        return np.frombuffer(self.take(2 * count), dtype="<u2")

    def words64(self, count: int) -> NDArray[np.uint64]:
        """Return the next `count` 64-bit words."""
        return np.frombuffer(self.take(8 * count), dtype="<u8")
