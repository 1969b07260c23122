"""What masking costs beside the AES that it rests on: no network, one institution among a hundred.

Each figure is the best of several runs, taken in turns with what it is compared to: whatever else the machine does only
ever makes a run slower, and it then slows both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from trust.secagg.masks import BLOCK_BYTES, Ring
from trust.secagg.rehearsal import Consortium, Rehearsal

LENGTH, RING_BITS = 2_000_000, 32
MASKING = 100
"""Institutions of the round in which one masks: its vector takes as many key streams."""
UNMASKING, GONE = 40, 4
"""Institutions of the round that the coordinator unmasks, and how many of them vanished."""
TURNS = 5


def rates() -> dict[str, float]:
    """Return `aes_gb_per_s`, `mask_over_aes`, `unmask_over_aes`, all on one core, and `two_thread_speedup`.

    Masking is all of an upload but its sending: 100 key streams (99 peers, one self-mask) combined into a vector of 2M
    entries of 32 bits, chunks cut and hashed, the manifest signed. Unmasking is all of the coordinator's last step when
    4 of 40 have vanished: secrets reconstructed and checked, 180 key streams taken off the sum. Rates count bytes of
    key stream. The speed-up is of masking, on two cores over one.
    """
    consortium = Consortium(f"h{i:03d}" for i in range(MASKING))
    small = Consortium(consortium.names[:UNMASKING])
    cores = sorted(os.sched_getaffinity(0))
    aes, one, two, unmask = [], [], [], []
    for _ in range(TURNS):
        aes.append(aes_seconds(cores[:1]))
        one.append(mask_seconds(consortium, cores[:1]))
        two.append(mask_seconds(consortium, cores[:2]))
        aes.append(aes_seconds(cores[:1]))
        unmask.append(unmask_seconds(small, cores[:1]))
    return {
        "aes_gb_per_s": 1e-9 / min(aes),
        "mask_over_aes": min(aes) / min(one),
        "unmask_over_aes": min(aes) / min(unmask),
        "two_thread_speedup": min(one) / min(two),
    }


@contextmanager
def restricted_to(cores: list[int]) -> Iterator[None]:
    """Run on these cores only; threads that are started meanwhile do too."""
    before = os.sched_getaffinity(0)
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), before)


def seconds(work: Callable[[], object], cores: list[int]) -> float:
    """Seconds that the work takes on these cores."""
    with restricted_to(cores):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def aes_seconds(cores: list[int], total: int = 1 << 30) -> float:
    """Seconds per byte of AES-256-CTR over blocks that stay in cache, and nothing else: the ceiling."""
    cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    zeros, out = bytes(BLOCK_BYTES), bytearray(BLOCK_BYTES)

    def run() -> None:
        for _ in range(total // BLOCK_BYTES):
            cipher.update_into(zeros, out)

    return seconds(run, cores) / total


def mask_seconds(consortium: Consortium, cores: list[int]) -> float:
    """Seconds per byte of key stream that one institution's masking takes."""
    me = consortium.names[MASKING // 2]
    rehearsal = Rehearsal(consortium, consortium.parameters(length=LENGTH, ring_bits=RING_BITS))
    for name, other in rehearsal.agents.items():
        rehearsal.coordinator.on_join(name, other.join())
    agent = rehearsal.agents[me]
    agent.on_roster(rehearsal.coordinator.close_joins()[me])
    vector = np.random.default_rng(7).integers(0, 1 << RING_BITS, LENGTH, dtype=np.uint32)

    def work() -> None:
        for _ in agent.masked_chunks(vector):
            """Each chunk would be sent here."""
        agent.manifest()

    return seconds(work, cores) / (MASKING * vector.nbytes)


def unmask_seconds(consortium: Consortium, cores: list[int]) -> float:
    """Seconds per byte of key stream that the coordinator's last step takes; the sum is verified."""
    rehearsal = Rehearsal(consortium, consortium.parameters(length=LENGTH, ring_bits=RING_BITS))
    rehearsal.join(consortium.names)
    survivors = consortium.names[GONE:]
    rehearsal.upload(survivors)
    rehearsal.confirm(survivors)
    coordinator = rehearsal.coordinator
    for name in survivors[: rehearsal.parameters.threshold]:
        coordinator.on_reveal(name, rehearsal.agents[name].on_confirmations(rehearsal.confirmations))
    totals: list[Ring] = []
    took = seconds(lambda: totals.append(coordinator.result()), cores)
    assert np.array_equal(totals[0], rehearsal.expected()), "the sum is wrong"
    return took / (len(survivors) * (1 + GONE) * totals[0].nbytes)
