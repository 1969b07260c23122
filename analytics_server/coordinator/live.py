"""A request while it runs: what has been reported of it, and who follows. In memory, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from protos.v1 import analyst_pb2


class Live:
    """Reports of one request, in order; whoever follows gets all of them, also those from before it came."""

    def __init__(self, request_id: bytes) -> None:
        self.request_id = request_id
        self._reports: list[analyst_pb2.Progress] = []
        self._more = asyncio.Event()
        self._over = False

    def step(self, step: str, institutions: Iterable[str]) -> None:
        """Report that institutions have reached a step."""
        self._add(analyst_pb2.Progress(request_id=self.request_id, step=step, institutions=sorted(institutions)))

    def report(self, progress: analyst_pb2.Progress) -> None:
        """Report something that is neither a mere step nor the end: a round of a job."""
        self._add(progress)

    def end(self, progress: analyst_pb2.Progress) -> None:
        """Report the release or the failure, after which nothing follows."""
        self._over = True
        self._add(progress)

    def _add(self, progress: analyst_pb2.Progress) -> None:
        self._reports.append(progress)
        self._more.set()
        self._more = asyncio.Event()

    async def follow(self) -> AsyncIterator[analyst_pb2.Progress]:
        """Yield every report, to the last."""
        seen = 0
        while True:
            more = self._more
            while seen < len(self._reports):
                yield self._reports[seen]
                seen += 1
            if self._over:
                return
            await more.wait()
