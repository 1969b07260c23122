"""Masks: AES-256-CTR as published, whoever reads which part of the stream, with a new key per segment."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from trust.secagg import masks


def key(segment: int) -> bytes:
    return segment.to_bytes(32, "big")


def other_key(segment: int) -> bytes:
    return (segment + 1000).to_bytes(32, "little")


def counter_mode(key_bytes: bytes, size: int) -> bytes:
    """AES-CTR by its definition (NIST SP 800-38A section 6.5): encrypted counters from zero."""
    ecb = Cipher(algorithms.AES(key_bytes), modes.ECB()).encryptor()  # noqa: S305 - the definition, not a use
    return b"".join(ecb.update(i.to_bytes(16, "big")) for i in range(-(-size // 16)))[:size]


def mask_of(segment_key: masks.SegmentKey, size: int) -> bytes:
    """The first `size` bytes of a mask, by the definition in the module's docstring, through one call per segment."""
    parts = []
    for segment in range(-(-size // masks.SEGMENT_BYTES)):
        cipher = Cipher(algorithms.AES(segment_key(segment)), modes.CTR(bytes(16))).encryptor()
        parts.append(cipher.update(bytes(min(masks.SEGMENT_BYTES, size - segment * masks.SEGMENT_BYTES))))
    return b"".join(parts)


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_a_mask_is_aes_in_counter_mode_over_the_ring(dtype: str) -> None:
    vector = np.arange(101, dtype=dtype)
    expected = vector + np.frombuffer(counter_mode(key(0), vector.nbytes), dtype=dtype)
    masks.apply_masks(vector, [masks.MaskStream(key, 1)])
    assert (vector == expected).all()


def test_adding_and_subtracting_a_mask_cancel() -> None:
    vector = np.arange(1_000_003, dtype="<u8")
    masks.apply_masks(vector, [masks.MaskStream(key, 1)])
    assert (vector != np.arange(1_000_003, dtype="<u8")).all()
    masks.apply_masks(vector, [masks.MaskStream(key, -1)])
    assert (vector == np.arange(1_000_003, dtype="<u8")).all()


@pytest.mark.parametrize("entries", [1, 2000, 300_001, 2_000_003])
@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_many_workers_make_the_mask_that_one_would(monkeypatch: pytest.MonkeyPatch, entries: int, dtype: str) -> None:
    monkeypatch.setattr(masks, "SEGMENT_BYTES", 1_000_000 + 8)  # so that segments end inside pieces, blocks, AES blocks
    vector = np.arange(entries, dtype=dtype)
    whole = vector.copy()
    masks.apply_masks(whole, [masks.MaskStream(key, 1), masks.MaskStream(other_key, -1)])
    plus = np.frombuffer(mask_of(key, vector.nbytes), dtype=dtype)
    minus = np.frombuffer(mask_of(other_key, vector.nbytes), dtype=dtype)
    assert (whole == vector + plus - minus).all()


@pytest.mark.parametrize("step", [1, 3, 250, 999, 1 << 17, 10_000_000])
def test_the_stream_does_not_depend_on_how_it_is_cut(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(masks, "SEGMENT_BYTES", 1000)
    vector = np.arange(min(1500 * step, 400_000), dtype="<u4")
    kept = vector.copy()
    streams = [masks.MaskStream(key, 1), masks.MaskStream(other_key, -1)]
    pieces = list(masks.masked_pieces(vector, step, streams))
    assert (vector == kept).all(), "the caller's vector is left as it is"
    assert all(len(piece) == 4 * step for piece in pieces[:-1])
    masks.apply_masks(kept, streams)
    assert b"".join(pieces) == kept.tobytes()


def test_more_masks_than_are_kept_at_once_are_all_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MASKS_AT_ONCE", 3)
    vector = np.zeros(200_000, dtype="<u8")
    masks.apply_masks(vector, (masks.MaskStream(key, 1) for _ in range(7)))
    assert (vector == np.frombuffer(mask_of(key, vector.nbytes), dtype="<u8") * np.uint64(7)).all()


def test_a_key_source_that_fails_ends_the_work() -> None:
    def failing(segment: int) -> bytes:
        raise RuntimeError("no key")

    with pytest.raises(RuntimeError, match="no key"):
        masks.apply_masks(np.zeros(1 << 20, dtype="<u8"), [masks.MaskStream(failing, 1)])
    with pytest.raises(RuntimeError, match="no key"):
        list(masks.masked_pieces(np.zeros(1 << 20, dtype="<u8"), 1 << 17, [masks.MaskStream(failing, 1)]))


def test_small_vectors_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_workers", lambda: pytest.fail("a small vector was handed to the workers"))
    before = threading.active_count()
    vector = np.zeros(masks.PIECE_BYTES // 8, dtype="<u8")
    masks.apply_masks(vector, [masks.MaskStream(key, 1)])
    list(masks.masked_pieces(vector, 1000, [masks.MaskStream(key, 1)]))
    assert threading.active_count() == before


AHEAD = """
import resource, sys, numpy as np
from trust.secagg import masks
streams = [masks.MaskStream(lambda s, i=i: (i * 1000 + s).to_bytes(32, "big"), 1 - 2 * (i % 2)) for i in range(100)]
vector = np.ones(int(sys.argv[1]), dtype="<u4")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for piece in masks.masked_pieces(vector, 1 << 18, streams):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_masking_needs_little_memory_beyond_the_vector() -> None:
    entries = 20_000_000  # 80 MB, so that another vector would show
    done = subprocess.run([sys.executable, "-c", AHEAD, str(entries)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32_000  # KiB
