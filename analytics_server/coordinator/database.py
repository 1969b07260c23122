"""The store, off the event loop: one thread through which every transaction of this process goes, in order.

What is waiting to be written when the thread comes to it is written in one transaction: the disk is waited for once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from analytics_server.store import Store, UnitOfWork

T = TypeVar("T")
_TOGETHER = 64
"""Units of work in one transaction at most."""


class Database:
    """Runs functions of a unit of work. Each is undone alone where it raises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._waiting: deque[tuple[Callable[[UnitOfWork], Any], Future[Any]]] = deque()

    async def write(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run `work`, which must not block; it is durable when this returns, and undone when it raises."""
        done: Future[T] = Future()
        self._waiting.append((work, done))
        self._thread.submit(self._write_waiting)
        return await asyncio.wrap_future(done)

    def _write_waiting(self) -> None:
        units: list[tuple[Callable[[UnitOfWork], Any], Future[Any]]] = []
        while self._waiting and len(units) < _TOGETHER:
            work, done = self._waiting.popleft()
            if done.set_running_or_notify_cancel():
                units.append((work, done))
        if not units:
            return  # an earlier call took them
        try:
            outcomes = self._store.write_all([work for work, _ in units])
        except BaseException as error:
            outcomes = [error] * len(units)
        for (_, done), outcome in zip(units, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run `work` in a read-only transaction."""

        def run() -> T:
            with self._store.read() as uow:
                return work(uow)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def close(self) -> None:
        """Finish what is queued, then close the store."""
        self._thread.shutdown(wait=True)
        self._store.close()
