"""Masks: AES-256-CTR as published, in place, independent of how the stream is cut, a new key per segment."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from trust.secagg import masks


def key(segment: int) -> bytes:
    return segment.to_bytes(32, "big")


def counter_mode(key_bytes: bytes, size: int) -> bytes:
    """AES-CTR by its definition (NIST SP 800-38A section 6.5): encrypted counters from zero."""
    ecb = Cipher(algorithms.AES(key_bytes), modes.ECB()).encryptor()  # noqa: S305 - the definition, not a use
    return b"".join(ecb.update(i.to_bytes(16, "big")) for i in range(-(-size // 16)))[:size]


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_a_mask_is_aes_in_counter_mode_over_the_ring(dtype: str) -> None:
    vector = np.arange(101, dtype=dtype)
    expected = vector + np.frombuffer(counter_mode(key(0), vector.nbytes), dtype=dtype)
    masks.apply_masks(vector, [masks.MaskStream(key, 1)], bytearray(vector.nbytes))
    assert (vector == expected).all()


def test_adding_and_subtracting_a_mask_cancel() -> None:
    vector = np.arange(100_000, dtype="<u8")
    masks.apply_masks(vector, [masks.MaskStream(key, 1)], bytearray(masks.BLOCK_BYTES))
    assert (vector != np.arange(100_000, dtype="<u8")).all()
    masks.apply_masks(vector, [masks.MaskStream(key, -1)], bytearray(masks.BLOCK_BYTES))
    assert (vector == np.arange(100_000, dtype="<u8")).all()


def test_the_stream_does_not_depend_on_how_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "SEGMENT_BYTES", 1000)  # so that short vectors cross segments
    whole, cut = np.zeros(2000, dtype="<u4"), np.zeros(2000, dtype="<u4")
    masks.apply_masks(whole, [masks.MaskStream(key, 1)], bytearray(8000))
    stream = masks.MaskStream(key, 1)
    for start, end in ((0, 1), (1, 250), (250, 251), (251, 1999), (1999, 2000)):
        masks.apply_masks(cut[start:end], [stream], bytearray(8000))
    assert (whole == cut).all()
    expected = b"".join(counter_mode(key(segment), 1000) for segment in range(8))
    assert whole.tobytes() == expected
