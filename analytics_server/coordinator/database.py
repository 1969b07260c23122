"""The store, off the event loop: one thread through which every transaction of this process goes, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from analytics_server.store import Store, UnitOfWork

T = TypeVar("T")


class Database:
    """Runs functions of a unit of work, each in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def write(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run `work` in a transaction; it is durable when this returns, and undone when it raises."""

        def run() -> T:
            with self._store.begin() as uow:
                return work(uow)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

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
