"""A real agent or coordinator that ends itself by SIGKILL at a chosen point of its work, and writes down where it was.

Shipped code has no switch for this. These entry points wrap, in their own process, whatever persists and whatever
sends, then call the same `main` as the installed commands. A process passes a *point* before and after each; the one
at which it is to die stands in the file FATAL of its folder, as LABEL or LABEL#N for the N-th time from when that was
written. Every point goes to the file POINTS first, which survives the process, so that a test can hold its ledger and
its messages against what it really did.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

FATAL, POINTS = "fatal", "points"


class Course:
    """The points that one process passes."""

    def __init__(self, folder: Path) -> None:
        self._fatal = folder / FATAL
        self._log = os.open(folder / POINTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._armed = ""
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def point(self, label: str, detail: str = "") -> None:
        """Pass a point, or die there."""
        with self._lock:
            try:
                armed = self._fatal.read_text()
            except FileNotFoundError:
                armed = ""
            if armed != self._armed:
                self._armed = armed
                self._passed.clear()
            self._passed[label] += 1
            os.write(self._log, f"{label}\t{detail}\n".encode())
            if armed in (f"{label}#{self._passed[label]}", label):
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()  # the signal is on its way; nothing may happen any more

    def around(self, owner: Any, name: str, label: str | Callable[..., tuple[str, str]]) -> None:
        """Have a method of a class pass a point before and one after it; `label` may look at its arguments."""
        original = getattr(owner, name)

        def named(arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[str, str]:
            return (label, "") if isinstance(label, str) else label(*arguments, **options)

        if asyncio.iscoroutinefunction(original):

            @functools.wraps(original)
            async def wrapped(*arguments: Any, **options: Any) -> Any:
                what, detail = named(arguments, options)
                self.point(f"before {what}", detail)
                result = await original(*arguments, **options)
                self.point(f"after {what}", detail)
                return result
        else:

            @functools.wraps(original)
            def wrapped(*arguments: Any, **options: Any) -> Any:
                what, detail = named(arguments, options)
                self.point(f"before {what}", detail)
                result = original(*arguments, **options)
                self.point(f"after {what}", detail)
                return result

        setattr(owner, name, wrapped)


def agent() -> None:
    """`cohortium-agent`, passing a point around every commit of its ledger and every message that it writes."""
    from grpc.aio import _call

    from analytics_client.agent.cli import main
    from analytics_client.agent.ledger import Ledger
    from protos.v1 import agent_pb2

    course = Course(Path(sys.argv[-1]))

    def commit(name: str) -> Callable[..., tuple[str, str]]:
        def label(_ledger: object, *arguments: Any, **options: Any) -> tuple[str, str]:
            round_id = options["round_id"] if name == "reserve" else b"" if name == "set_head" else arguments[1]
            return f"commit {name}", round_id.hex()

        return label

    for name in ("reserve", "upload", "reveal", "release", "set_head"):
        course.around(Ledger, name, commit(name))

    def write(_call: object, message: Any) -> tuple[str, str]:
        if isinstance(message, bytes):  # of an upload, which are encoded as they are made
            message = agent_pb2.UploadChunk.FromString(message)
        return "send " + _kind(message), _round(message)

    course.around(_call._StreamRequestMixin, "write", write)
    main()


def coordinator() -> None:
    """`cohortium-server`, passing a point in and around every transaction and at every message, both ways."""
    from analytics_server.cli import main
    from analytics_server.coordinator import hub, live, rounds
    from analytics_server.coordinator.database import Database
    from trust.secagg import CoordinatorRound, UploadSink

    course = Course(Path(sys.argv[-1]))
    write = Database.write

    async def written(database: Database, work: Callable[[Any], Any]) -> Any:
        what = getattr(work, "__qualname__", type(work).__name__).replace(".<locals>", "").replace(".<lambda>", "")

        def work_(uow: Any) -> Any:
            result = work(uow)
            course.point(f"within {what}")
            return result

        course.point(f"before {what}")
        result = await write(database, work_)
        course.point(f"after {what}")
        return result

    Database.write = written  # type: ignore[method-assign]  # this process is the test's own
    course.around(hub.AgentConnection, "send", lambda _connection, message: ("send " + _kind(message), _round(message)))
    course.around(rounds.Round, "on_message", lambda _running, _member, message: ("receive " + _kind(message), ""))
    course.around(UploadSink, "feed", "receive chunk")
    course.around(UploadSink, "finish", "receive manifest")
    course.around(CoordinatorRound, "result", "unmask")
    course.around(live.Live, "_add", lambda _live, progress: (f"report {progress.step}", ""))
    main()


def _kind(message: Any) -> str:
    if not hasattr(message, "WhichOneof"):
        return type(message).__name__
    if "data" in message.DESCRIPTOR.fields_by_name:
        return "chunk"
    kind = str(message.WhichOneof("message"))
    return f"{kind} {message.round.step}" if kind == "round" else kind


def _round(message: Any) -> str:
    if "data" in message.DESCRIPTOR.fields_by_name:
        return str(message.round_id.hex())
    kind = message.WhichOneof("message")
    return str(getattr(message, kind).round_id.hex()) if kind in ("round", "answer") else ""
