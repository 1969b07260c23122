"""Key streams that hide vectors: AES-256-CTR, added to or subtracted from ring elements, by all cores.

Where a mask's key comes from is in `keys`; this module turns a source of keys into a stream of any length that can be
read from any offset. Must not know: rounds, members, messages.

**No byte of key stream serves twice.** Byte p of a mask is byte p mod 2^26 of AES-256-CTR, counting from zero, under
the key of segment p div 2^26; a segment has a key of its own, derived from its number. So the byte at an offset is a
function of mask and offset alone. Workers divide a vector into pieces that do not overlap, and each starts the counter
at its piece's place in the segment: whatever the division, entry i gets the stream's bytes at i's offset, once. A
counter of 2^22 blocks never wraps. That a mask serves one vector only is the caller's (`AgentRound` masks once).
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

SEGMENT_BYTES = 64 << 20
BLOCK_BYTES = 512 << 10
"""What all masks of a worker pass over at a time: vector, key stream and zeros together stay in a core's cache."""
PIECE_BYTES = 1 << 20
"""What a worker takes at a time. A vector that is no larger is worked on where it is, without a hand-over."""
MOST_WORKERS = 8
"""More would want more memory for pieces than they save: eight cores of AES are as fast as memory."""
MASKS_AT_ONCE = 512
"""Each worker keeps a cipher of every mask it applies, about 1 KiB; more masks than this take another pass."""
_AES_BLOCK = 16
_COUNTER = bytes(16)
"""Where a segment starts to count."""
_ZEROS = memoryview(bytes(BLOCK_BYTES + _AES_BLOCK))

Ring: TypeAlias = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
SegmentKey: TypeAlias = Callable[[int], bytes]
"""Segment number (from 0) -> 32-byte AES key."""


@dataclass(frozen=True, slots=True)
class MaskStream:
    """One mask. `sign` +1 adds it to a vector, -1 subtracts it."""

    segment_key: SegmentKey
    sign: int


def apply_masks(vector: Ring, streams: Iterable[MaskStream]) -> None:
    """Combine all streams, from their beginning, into a contiguous vector, in place.

    Modular arithmetic of the ring is numpy's own wrap-around. Vectors above 1 MiB are worked on by all cores. Extra
    memory: about 0.8 MiB per worker.
    """
    step = PIECE_BYTES // vector.itemsize
    for some in _in_batches(streams):
        masks = _Masks(some)
        if vector.nbytes <= PIECE_BYTES:
            masks.apply(vector, 0)
            continue

        def work(start: int, masks: _Masks = masks) -> None:
            masks.apply(vector[start : start + step], start * vector.itemsize)

        for _ in _workers().map(work, range(0, len(vector), step)):
            pass


def masked_pieces(vector: Ring, step: int, streams: Iterable[MaskStream]) -> Iterator[bytes]:
    """Yield the bytes of `vector` with all streams combined into it, `step` entries at a time; leave it as it is.

    Above 1 MiB all cores work ahead of the reader. Extra memory: at most two pieces and a block per worker, of at most
    8 workers, and two pieces.
    """
    masks = _Masks(streams)

    def work(start: int) -> bytes:
        return masks.copy(vector[start : start + step], start * vector.itemsize)

    starts = iter(range(0, len(vector), step))
    if vector.nbytes <= PIECE_BYTES:
        yield from map(work, starts)
        return
    pool, workers, ahead = _workers(), worker_count(), deque[Future[bytes]]()
    try:
        for start in starts:
            ahead.append(pool.submit(work, start))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


class _Masks:
    """The masks that go onto one vector. Its methods may be called from several threads, for pieces in any order."""

    def __init__(self, streams: Iterable[MaskStream]) -> None:
        self._streams = tuple(streams)
        self._idle: list[_Bench] = []  # a worker takes one for a piece, so that there are never more than workers

    def apply(self, piece: Ring, offset: int) -> None:
        """Combine the streams' bytes from `offset` on into `piece`, in place."""
        bench = self._take()
        bench.apply(piece, offset)
        self._idle.append(bench)

    def copy(self, piece: Ring, offset: int) -> bytes:
        """As `apply`, into a copy."""
        bench = self._take()
        masked = bench.copy_of(piece)
        bench.apply(masked, offset)
        data = masked.tobytes()
        self._idle.append(bench)
        return data

    def _take(self) -> _Bench:
        try:
            return self._idle.pop()
        except IndexError:
            return _Bench(self._streams)


class _Bench:
    """What one worker needs: a cipher per mask, and buffers."""

    def __init__(self, streams: tuple[MaskStream, ...]) -> None:
        self._readers = [(_Reader(s.segment_key), np.add if s.sign > 0 else np.subtract) for s in streams]
        self._keystream = memoryview(b"")
        self._copy: Ring = np.empty(0, dtype=np.uint64)

    def copy_of(self, piece: Ring) -> Ring:
        """Return a copy that is valid until the next call."""
        if self._copy.dtype != piece.dtype or len(self._copy) < len(piece):
            self._copy = np.empty_like(piece)
        copy = self._copy[: len(piece)]
        copy[:] = piece
        return copy

    def apply(self, piece: Ring, offset: int) -> None:
        size = min(piece.nbytes, BLOCK_BYTES) + _AES_BLOCK
        if len(self._keystream) < size:
            self._keystream = memoryview(bytearray(size))
        step = BLOCK_BYTES // piece.itemsize
        for start in range(0, len(piece), step):
            block = piece[start : start + step]
            self._apply_block(block, offset + start * piece.itemsize)

    def _apply_block(self, block: Ring, offset: int) -> None:
        done = 0
        while done < block.nbytes:  # twice only where a segment ends inside the block
            segment, inside = divmod(offset + done, SEGMENT_BYTES)
            size = min(block.nbytes - done, SEGMENT_BYTES - inside)
            skip = inside % _AES_BLOCK
            keystream, zeros = self._keystream[: skip + size], _ZEROS[: skip + size]
            part = block[done // block.itemsize : (done + size) // block.itemsize]
            other = np.frombuffer(keystream, dtype=block.dtype, offset=skip)
            for reader, combine in self._readers:
                reader.read_into(zeros, keystream, segment, inside - skip)
                combine(part, other, out=part)
            done += size


class _Reader:
    """One mask's key stream, for one worker."""

    __slots__ = ("_cipher", "_next", "_segment", "_segment_key")

    def __init__(self, segment_key: SegmentKey) -> None:
        self._segment_key = segment_key
        self._segment = -1
        self._next = -1
        self._cipher: CipherContext

    def read_into(self, zeros: memoryview, keystream: memoryview, segment: int, inside: int) -> None:
        """Fill `keystream` with the bytes of a segment from `inside` on, a multiple of 16; `zeros` is as long."""
        if segment != self._segment:
            mode = modes.CTR(_counter(inside))
            self._cipher = Cipher(algorithms.AES(self._segment_key(segment)), mode).encryptor()
            self._segment = segment
        elif inside != self._next:
            self._cipher.reset_nonce(_counter(inside))
        self._cipher.update_into(zeros, keystream)
        self._next = inside + len(keystream)


def _counter(inside: int) -> bytes:
    return (int.from_bytes(_COUNTER, "big") + inside // _AES_BLOCK).to_bytes(_AES_BLOCK, "big")


def _in_batches(streams: Iterable[MaskStream]) -> Iterator[tuple[MaskStream, ...]]:
    left = iter(streams)
    while some := tuple(islice(left, MASKS_AT_ONCE)):
        yield some


def worker_count() -> int:
    """Cores that this process may use now, at most 8."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def _workers() -> ThreadPoolExecutor:
    """The process's mask workers, started by the first vector that is large enough to need them."""
    return _pool(worker_count())


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=workers, thread_name_prefix="mask")
