"""What institutions want the log to say of them: a new policy, a steward's decision on ledger or question.

Signed by the institution, checked, written, and only then confirmed: until that it is sent again, so that nothing is
lost; after a broken connection the log may hold one twice, under the same number. Must not know: rounds, queries.
"""

from __future__ import annotations

import structlog
from google.protobuf.message import DecodeError

from analytics_server.audit.log import AuditLog
from analytics_server.coordinator import records
from analytics_server.coordinator.database import Database
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import AgentConnection
from protos.v1 import agent_pb2
from queries.errors import CohortiumError, ProtocolViolation, SignatureError
from trust.identity import keys
from trust.transcript import frame

ABOUT = frozenset({"policy", "ledger", "approval", "job"})
MAX_TEXT = 600
logger = structlog.get_logger("cohortium.coordinator")


class Statements:
    """Writes the statements of agents into the log."""

    def __init__(self, database: Database, log: AuditLog, directory: Directory) -> None:
        self._database = database
        self._log = log
        self._directory = directory

    async def take(self, connection: AgentConnection, statement: agent_pb2.Statement) -> None:
        """Write one into the log and confirm it. Raise ProtocolViolation on one that is not what it must be."""
        content = self._checked(connection.id, statement)
        entry = records.stated(content, statement.SerializeToString(deterministic=True))
        try:
            await self._database.write(lambda uow: self._log.append_in(uow, [entry]))
        except CohortiumError as error:  # not confirmed: it comes again
            logger.error("a statement was not logged", institution=connection.id, reason=error.message)
            return
        confirmed = agent_pb2.StatementLogged(number=content.number)
        connection.send(agent_pb2.ToAgent(statement_logged=confirmed))

    def _checked(self, institution: str, statement: agent_pb2.Statement) -> agent_pb2.StatementContent:
        known = self._directory.members.get(institution)
        if known is None:
            raise ProtocolViolation(f"institution {institution} is not in the membership", party=institution)
        content = agent_pb2.StatementContent()
        try:
            content.ParseFromString(statement.content)
            message = frame("statement", statement.content)
            keys.verify(known.identity_key, statement.signature, message, what="a statement")
        except (DecodeError, SignatureError) as error:
            raise ProtocolViolation(
                f"institution {institution} sent a statement it did not sign", party=institution
            ) from error
        proper = content.about in ABOUT and 0 < len(content.text) <= MAX_TEXT and content.text.isprintable()
        if content.institution != institution or not proper or len(content.subject) not in (0, 32):
            raise ProtocolViolation(f"institution {institution} sent a malformed statement", party=institution)
        return content
