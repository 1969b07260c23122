"""The agents that are connected now, and what is on its way to each of them.

One `AgentConnection` per open control stream. Everything sent to an agent goes through its queue, in order, so that a
consistency proof always starts from the head that was sent before it. Must not know: rounds, queries, SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from protos.v1 import agent_pb2
from queries.errors import ServiceError


class RoundListener(Protocol):
    """What a connection tells the rounds it takes part in."""

    def on_message(self, member: str, message: agent_pb2.FromAgent) -> None:
        """Handle an answer or a round message."""

    def lost(self, member: str) -> None:
        """Learn that the connection closed."""


@dataclass(eq=False)
class AgentConnection:
    """An open control stream.

    `sent_size` is the log size of the last head put into the queue, `serving` the schema hash of every dataset that the
    agent has loaded, `cosigned` the newest head that it had cosigned when it connected, `recorded`
    the entries of its own decisions that it is to be shown, `rounds` who listens for its messages, by round id.
    """

    id: str
    sent_size: int
    welcomed: bool = False
    cosigned: bytes = b""
    serving: dict[str, bytes] = field(default_factory=dict)
    outgoing: asyncio.Queue[agent_pb2.ToAgent | None] = field(default_factory=asyncio.Queue)
    recorded: list[int] = field(default_factory=list)
    rounds: dict[bytes, RoundListener] = field(default_factory=dict)

    def send(self, message: agent_pb2.ToAgent) -> None:
        """Queue a message; it leaves in the order of the calls."""
        self.outgoing.put_nowait(message)


class Hub:
    """Connected agents by institution id."""

    def __init__(self) -> None:
        self._connections: dict[str, AgentConnection] = {}

    def register(self, connection: AgentConnection) -> None:
        """Add a connection; raise ServiceError where the institution is connected already."""
        if connection.id in self._connections:
            raise ServiceError(
                f"institution {connection.id!r} is already connected",
                hint="stop the other agent that runs with this folder, or enrol this one under its own id",
            )
        self._connections[connection.id] = connection

    def unregister(self, connection: AgentConnection) -> None:
        """Remove a connection and tell its rounds that it is gone."""
        if self._connections.get(connection.id) is connection:
            del self._connections[connection.id]
        connection.outgoing.put_nowait(None)
        for listener in tuple(connection.rounds.values()):
            listener.lost(connection.id)

    def get(self, institution: str) -> AgentConnection | None:
        """Return the open connection of an institution, if there is one."""
        return self._connections.get(institution)

    def serving(self, dataset: str, schema_hash: bytes, among: Iterable[str]) -> tuple[str, ...]:
        """Return the sorted ids, of those given, that are connected and serve the dataset as described now."""
        return tuple(
            sorted(i for i in among if (c := self._connections.get(i)) and c.serving.get(dataset) == schema_hash)
        )

    def all(self) -> tuple[AgentConnection, ...]:
        """Return every open connection."""
        return tuple(self._connections.values())
