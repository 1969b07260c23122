"""No two vectors share randomness: not in turn, over threads or over a fork. The tests see it if they do."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics_client.agent import noise
from trust.noise import gaussian
from trust.noise.stream import KEY_BYTES, Stream

Draw = Callable[[], NDArray[np.int64]]
WIDE = Fraction(10**12)


def short() -> NDArray[np.int64]:
    return noise.share(20, WIDE)


def long() -> NDArray[np.int64]:
    return noise.share(noise.LONGEST_OPENDP + 1, WIDE)[:20]


def pure() -> NDArray[np.int64]:
    return noise.share(20, Fraction(10**12), Fraction(10**6))


def in_turn(draw: Draw) -> list[bytes]:
    return [draw().tobytes() for _ in range(4)]


def in_threads(draw: Draw) -> list[bytes]:
    with ThreadPoolExecutor(4) as pool:
        return [vector.tobytes() for vector in pool.map(lambda _: draw(), range(8))]


def in_forks(draw: Draw) -> list[bytes]:
    """Two children and their parent, all after the samplers were built and used, as in a resident agent."""
    draw()
    answers = []
    for _ in range(2):
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(send, draw().tobytes())
            os._exit(0)
        os.close(send)
        with os.fdopen(receive, "rb") as pipe:
            answers.append(pipe.read())
        os.waitpid(child, 0)
    return [*answers, draw().tobytes()]


@pytest.mark.parametrize("way", [in_turn, in_threads, in_forks])
@pytest.mark.parametrize("draw", [short, long, pure])
def test_vectors_differ(draw: Draw, way: Callable[[Draw], list[bytes]]) -> None:
    answers = way(draw)
    assert len({*answers}) == len(answers)
    assert all(len(answer) == 160 for answer in answers)


@pytest.mark.parametrize("way", [in_turn, in_threads, in_forks])
@pytest.mark.parametrize("draw", [long, pure])
def test_a_reused_key_is_seen(monkeypatch: pytest.MonkeyPatch, draw: Draw, way: Callable[[Draw], list[bytes]]) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    assert len({*way(draw)}) == 1


def test_a_stream_kept_over_a_fork_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Stream(os.urandom(KEY_BYTES))
    monkeypatch.setattr(Stream, "fresh", lambda: kept)
    answers = in_forks(long)
    assert len({*answers}) < len(answers)


def test_a_stream_does_not_repeat() -> None:
    stream = Stream(bytes(KEY_BYTES))
    blocks = np.frombuffer(stream.take(16 << 20), dtype="V16")
    assert len({*blocks.tolist()}) == 1 << 20
    assert stream.take(16) not in {*blocks.tolist()}


def test_a_stream_is_that_of_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A has no vector with counter 0; the first blocks are AES-256 of 0 and 1 (FIPS 197) under key 0."""
    assert Stream(bytes(32)).take(16).hex() == "dc95c078a2408989ad48a21492842087"
    assert Stream(bytes(32)).words16(2).tolist() == [0x95DC, 0x78C0]
    assert Stream(bytes(32)).words64(1).tolist() == [0x898940A278C095DC]


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="key"):
        Stream(bytes(size))


def test_blocks_of_one_vector_differ() -> None:
    draws = noise.share(2 * gaussian.BLOCK, WIDE)
    assert not np.array_equal(draws[: gaussian.BLOCK], draws[gaussian.BLOCK :])
