"""What those try who only watch: how long an answer takes, how large messages are, what is said, what forks repeat."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from harness.consortium import Consortium

from adversary.town import TARGET_AGE
from analytics_client.agent.noise import share
from analytics_client.session import Session
from analytics_server.coordinator.rounds import Round
from protos.v1 import agent_pb2
from queries.errors import BudgetError, CohortiumError

COUNT_TARGET = "SELECT COUNT(*) AS x FROM {world} WHERE age = " + str(TARGET_AGE)


def seconds(session: Session, sql: str, rho: float) -> float:
    """Return how long one answer took."""
    begin = time.perf_counter()
    session.query(sql, rho=rho)
    return time.perf_counter() - begin


def learn_times(ask: Callable[[bool], float], rounds: int) -> tuple[float, bool]:
    """Time both worlds in turn. Return the threshold that tells them apart best, and whether the true one is slower."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for world in (False, True):
            times[world].append(ask(world))
    slower = statistics.median(times[True]) > statistics.median(times[False])
    candidates = sorted(times[False] + times[True])

    def right(threshold: float) -> int:
        return sum(t > threshold for t in times[slower]) + sum(t <= threshold for t in times[not slower])

    return max(candidates, key=right), slower


class Watcher:
    """Notes the kind and size of every message that an agent sends into a round, as the coordinator sees it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str, int]] = []
        on_message, take_manifest, upload_of = Round.on_message, Round.take_manifest, Round.upload_of

        def watched_message(round_: Round, member: str, message: agent_pb2.FromAgent) -> None:
            kind = message.WhichOneof("message")
            size = message.ByteSize()
            if kind == "answer":  # its decision holds numbers that count up with every question: of varying length
                size = len(message.answer.join)
            self.seen.append((member, f"{kind}:{message.round.step}", size))
            on_message(round_, member, message)

        async def watched_manifest(round_: Round, member: str, sink: Any, manifest: bytes) -> None:
            self.seen.append((member, "manifest", len(manifest)))
            await take_manifest(round_, member, sink, manifest)

        def watched_upload(round_: Round, member: str) -> Any:
            self.seen.append((member, "upload", round_.parameters.vector_bytes))
            return upload_of(round_, member)

        patch.setattr(Round, "on_message", watched_message)
        patch.setattr(Round, "take_manifest", watched_manifest)
        patch.setattr(Round, "upload_of", watched_upload)

    def sizes(self, session: Session, sql: str, rho: float) -> tuple[tuple[str, str, int], ...]:
        """Ask, and return who sent what, of which size."""
        self.seen.clear()
        session.query(sql, rho=rho)
        return tuple(sorted(self.seen))


def progress_of(session: Session, sql: str, rho: float) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what is reported while one question runs; the order within a step is that of the network."""
    reports: list[tuple[str, tuple[str, ...]]] = []
    try:
        session.query(sql, rho=rho, on_progress=lambda p: reports.append((p.step, tuple(sorted(p.institutions)))))
    except CohortiumError as error:
        reports.append((error.code, ()))
    return tuple(reports)


def forked_shares(length: int, variance: Fraction) -> int:
    """Draw a share in this process and in a forked child; return how many coordinates are equal where both start alike.

    A child that repeats its parent's noise gives the noise away: the difference of two releases is then exact.
    """
    share(length, variance)  # whatever state there could be is there before the fork
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(share(length, variance).tobytes())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        theirs = np.frombuffer(pipe.read(), dtype=np.int64)
    os.waitpid(child, 0)
    return int((theirs == share(length, variance)).sum())


def race(running: Consortium, world: str, rho: float, threads: int) -> int:
    """Two analysts ask at the same moment, `threads` times each; return how many answers they get."""
    answered, lock, start = 0, threading.Lock(), threading.Barrier(2 * threads)

    def ask(analyst: str) -> None:
        nonlocal answered
        with running.session(analyst) as session:
            session.describe(world)
            start.wait()
            try:
                session.query(COUNT_TARGET.format(world=world), rho=rho)
            except BudgetError:
                return
            with lock:
                answered += 1

    asking = [threading.Thread(target=ask, args=(analyst,)) for analyst in ("ada", "bob") for _ in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    return answered
