"""What agents are shown of the log, and what they cosign: heads with proofs that lead from the head each saw last.

One at a time: `turn` is held from reading the log's head until it is in the agents' queues, so that every consistency
proof starts from what that agent was sent before. Must not know: queries, rounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from analytics_server.audit.log import AuditLog
from analytics_server.coordinator.database import Database
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import AgentConnection, Hub
from analytics_server.store import UnitOfWork
from protos.v1 import agent_pb2, analyst_pb2, envelope_pb2
from queries.errors import LogError
from trust.question import model_hash
from trust.tlog.entries import decode

PIECE = 1 << 20
"""A longer model travels in pieces of as many bytes."""
MAX_OWED = 4096
"""How many of its own decisions an agent that connects is shown."""
logger = structlog.get_logger("cohortium.coordinator")


@dataclass(frozen=True, slots=True)
class Heads:
    """The latest head, proofs to it from the sizes that agents were sent, and of entry `seq` under it."""

    size: int
    note: bytes
    consistency: dict[int, tuple[bytes, ...]]
    seq: int
    inclusion: tuple[bytes, ...]
    leaf: bytes
    root: bytes = b""
    seen: int = 0
    """Size of the head that the request's analyst has seen; `seen_consistency` leads from there to this one."""
    seen_consistency: tuple[bytes, ...] = ()
    recorded: Mapping[int, analyst_pb2.LogProof] = field(default_factory=dict)
    """Decisions that institutions are to be shown, by entry."""

    def covers(self, connection: AgentConnection) -> bool:
        """Whether this head shows all that the agent may demand to see."""
        return all(seq in self.recorded for seq in connection.recorded)

    def show(self, connection: AgentConnection) -> agent_pb2.Head:
        """Return the head for an agent, which has been sent it from then on."""
        old_size = connection.sent_size
        head = agent_pb2.Head(
            checkpoint=self.note,
            old_size=old_size,
            consistency=self.consistency.get(old_size, ()),
            recorded=[self.recorded[seq] for seq in connection.recorded],
        )
        connection.recorded.clear()
        connection.sent_size = max(old_size, self.size)
        return head


class Witnessing:
    """Shows the log's heads to the connected agents, and keeps their cosignatures."""

    def __init__(self, *, database: Database, log: AuditLog, directory: Directory, hub: Hub) -> None:
        self._database = database
        self._log = log
        self._directory = directory
        self._hub = hub
        self._received: dict[str, agent_pb2.Cosignature] = {}
        self.turn = asyncio.Lock()

    def prove(self, uow: UnitOfWork, seq: int | None, *, seen: int = 0) -> Heads:
        """Return the newest head with its proofs, and with the inclusion of entry `seq` where one is given.

        `seen` is the size of a head that an analyst has seen. Raise LogError where it is larger than the log.
        """
        checkpoint = self._log.head(uow)
        size = checkpoint.size
        if seen > size:
            raise LogError(
                f"you have seen a log of {seen} entries, this one has {size}",
                hint="it was restored from an old copy, or you are shown another one: tell the auditor",
            )
        connections = self._hub.all()
        sent = {connection.sent_size for connection in connections}
        owed = sorted({entry for connection in connections for entry in tuple(connection.recorded) if entry < size})
        return Heads(
            size=size,
            note=checkpoint.note,
            consistency={old: tuple(uow.consistency(old, size)) for old in sent if 0 < old < size},
            seq=seq or 0,
            inclusion=() if seq is None else tuple(uow.inclusion(seq, size)),
            leaf=b"" if seq is None else uow.leaf(seq),
            root=checkpoint.root,
            seen=seen,
            seen_consistency=tuple(uow.consistency(seen, size)) if 0 < seen < size else (),
            recorded={
                entry: analyst_pb2.LogProof(seq=entry, leaf=uow.leaf(entry), hashes=path)
                for entry, path in uow.inclusions(owed).items()
            },
        )

    async def latest(self, seq: int | None, *, seen: int = 0) -> Heads:
        """As `prove`, in a transaction of its own. To be called while holding `turn`."""
        while True:
            heads = await self._database.read(lambda uow: self.prove(uow, seq, seen=seen))
            if self.covers(heads):
                return heads

    def covers(self, heads: Heads) -> bool:
        """Whether every agent may be sent this head: more can have been logged since it was read."""
        return all(heads.covers(connection) for connection in self._hub.all())

    def logged(self, first: int, institutions: Sequence[str]) -> None:
        """The decisions of these institutions are entries from `first` on: the next head shows each its own."""
        for seq, institution in enumerate(institutions, first):
            if connection := self._hub.get(institution):
                connection.recorded.append(seq)

    async def look_up(self, institution: str, owed: Sequence[agent_pb2.OwnDecision]) -> list[int]:
        """Return the entries of decisions that an agent, which connects, says it has not been shown."""

        def read(uow: UnitOfWork) -> list[int]:
            found = []
            for own in owed[:MAX_OWED]:
                rows = uow.leaves(0, MAX_OWED, request_id=own.request_id.hex(), kind="decided", institution=institution)
                found += [row.seq for row in rows if _round_of(row.leaf) == own.round_id]
            return found

        return await self._database.read(read) if owed else []

    def announce(
        self,
        cohort: tuple[str, ...],
        parameters: bytes,
        request: envelope_pb2.Envelope,
        heads: Heads,
        *,
        job: agent_pb2.JobRound | None = None,
    ) -> None:
        """Send a request to its cohort with the proof that it is in the log. To be called while holding `turn`.

        `job` says which round of a training job it is.
        """
        inclusion = analyst_pb2.LogProof(seq=heads.seq, leaf=heads.leaf, hashes=heads.inclusion)
        pieces: list[agent_pb2.ToAgent] = []
        if job is not None and len(job.model) > PIECE:
            pieces, job = _in_pieces(job)
        for member in cohort:
            if connection := self._hub.get(member):
                announce = agent_pb2.Announce(
                    parameters=parameters,
                    request=request,
                    head=heads.show(connection),
                    inclusion=inclusion,
                    seen_consistency=heads.seen_consistency,
                    job=job,
                )
                for piece in pieces:
                    connection.send(piece)
                connection.send(agent_pb2.ToAgent(announce=announce))

    def cosigned(self, institution: str, cosignature: agent_pb2.Cosignature) -> None:
        """Take a cosignature; a later one of the same institution covers every earlier one."""
        self._received[institution] = cosignature

    async def catch_up(self) -> None:
        """Show the newest head to every agent that has not seen it, and store what has been cosigned meanwhile."""
        async with self.turn:
            heads = await self.latest(None)
            for connection in self._hub.all():
                if connection.welcomed and connection.sent_size < heads.size:
                    connection.send(agent_pb2.ToAgent(head=heads.show(connection)))
        await self._store_received()

    async def newest_of(self, institution: str) -> bytes:
        """Return the newest head that an institution has cosigned, as a note with its line; empty for none."""
        await self._store_received()
        if institution not in self._directory.members:
            return b""
        known = self._directory.in_force().keys_of(institution)

        def read(uow: UnitOfWork) -> bytes:
            found = (self._log.newest_cosigned_by(uow, institution, key) for key in known)
            return next((note for note in found if note), b"")

        return await self._database.read(read)

    async def _store_received(self) -> None:
        received, self._received = self._received, {}
        if received:
            await self._database.write(lambda uow: self._keep(uow, received))

    def _keep(self, uow: UnitOfWork, received: Mapping[str, agent_pb2.Cosignature]) -> None:
        for member, cosignature in received.items():
            known = self._directory.members.get(member)
            try:
                if known is not None:
                    self._log.add_cosignature(uow, cosignature.size, member, known.identity_key, cosignature.line)
            except LogError as error:
                logger.warning("cosignature not kept", institution=member, reason=error.message)


def _round_of(leaf: bytes) -> bytes:
    answer = agent_pb2.Answer.FromString(decode(leaf).decided.statement)
    return agent_pb2.Decision.FromString(answer.decision).round_id


def _in_pieces(job: agent_pb2.JobRound) -> tuple[list[agent_pb2.ToAgent], agent_pb2.JobRound]:
    """Return a large model in pieces, and the round that names it."""
    name, size = model_hash(job.model), len(job.model)
    parts = (job.model[start : start + PIECE] for start in range(0, size, PIECE))
    pieces = [agent_pb2.ToAgent(model_piece=agent_pb2.ModelPiece(model_hash=name, size=size, data=p)) for p in parts]
    return pieces, agent_pb2.JobRound(slot=job.slot, model_hash=name)
