"""Running a long-lived process: one event loop, ended by SIGTERM or SIGINT. Must not know what it serves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop


def run_until_signal(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `serve()` until it returns or raises, or until a signal cancels it, which is a clean end.

    uvloop instead of asyncio's own loop: measured on a query over five agents it saves an eighth of all CPU time.
    """

    async def until_signal() -> None:
        serving = asyncio.ensure_future(serve())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        try:
            await serving
        except asyncio.CancelledError:
            return

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signal())
