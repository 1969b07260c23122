"""The coordinator's log held against an institution's own: what the one says that the other does not.

The institution's journal is a copy of `journal.sqlite` in its agent's folder; each decision in it states, under the
institution's signature, the size and root of the journal before it. So neither side can be edited unseen. Must not
know: the network.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from analytics_client.audit.asked import Asked, Decision
from protos.v1 import agent_pb2
from queries.errors import CohortiumError, ConfigError, LogError
from trust.identity import keys
from trust.tlog.entries import moment
from trust.tlog.merkle import Frontier, leaf_hash
from trust.transcript import frame


@dataclass(frozen=True, slots=True)
class Own:
    """One decision of a journal. `at_ms` is the institution's clock, unix milliseconds."""

    number: int
    at_ms: int
    statement: bytes
    decision: agent_pb2.Decision
    signature: bytes

    def __str__(self) -> str:
        verdict = "allowed" if self.decision.allowed else f"denied ({self.decision.rule})"
        request = self.decision.request_id.hex()[:12]
        return f"decision {self.number} of {moment(self.at_ms)[:16]}: {verdict} request {request}"


@dataclass(frozen=True)
class Reconciliation:
    """What was compared, and what differs. `problems` are of the journal itself: then it proves nothing."""

    institution: str
    decisions: int
    logged: int
    problems: tuple[str, ...]
    missing: tuple[Own, ...]
    """In the journal and not in the log: late, lost on the way, or left out."""
    foreign: tuple[Decision, ...]
    """In the log, signed, and not in the journal: the journal is not whole, or somebody else holds the key."""

    @property
    def ok(self) -> bool:
        """Whether the two say the same."""
        return not (self.problems or self.missing or self.foreign)

    def require(self) -> None:
        """Raise LogError naming the first difference, if there is one."""
        if not self.ok:
            raise LogError(self.lines()[1], hint="keep both, and ask the operator for what is missing")

    def lines(self) -> list[str]:
        """Return the result for a person, one line each."""
        verdict = "the log and the journal agree" if self.ok else "the log and the journal differ"
        return [
            f"{self.institution}: {self.decisions} decisions in its journal, {self.logged} in the log: {verdict}",
            *(f"the journal: {problem}" for problem in self.problems),
            *(f"not in the log: {own}" for own in self.missing),
            *(f"not in the journal: entry {d.seq} of the log, {_verdict(d)}" for d in self.foreign),
        ]


def read_journal(path: Path) -> list[Own]:
    """Read a copy of a journal. Raise ConfigError where it is none."""
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="copy it: sqlite3 journal.sqlite '.backup copy.sqlite'")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT seq, at_ms, statement FROM journal ORDER BY seq").fetchall()
            return [_own(*row) for row in rows]
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no journal of an agent", hint="copy it while the agent is stopped") from error


def reconcile(journal: Sequence[Own], asked: Iterable[Asked], identity_keys: Sequence[bytes]) -> Reconciliation:
    """Compare a journal with the requests of a log that was verified.

    `identity_keys` are the raw keys that the institution has had, in any order. Raise ConfigError for an empty journal.
    """
    if not journal:
        raise ConfigError("the journal is empty", hint="its agent has decided nothing yet")
    institution = journal[0].decision.institution
    logged = [d for request in asked for d in request.decisions if d.institution == institution]
    stated = {d.statement for d in logged}
    kept = {own.statement for own in journal}
    return Reconciliation(
        institution=institution,
        decisions=len(journal),
        logged=len(logged),
        problems=tuple(_problems(journal, institution, identity_keys)),
        missing=tuple(own for own in journal if own.statement not in stated),
        foreign=tuple(d for d in logged if d.statement not in kept),
    )


def _verdict(decision: Decision) -> str:
    return "allowed" if decision.allowed else f"denied ({decision.rule})"


def _own(seq: int, at_ms: int, statement: bytes) -> Own:
    answer, decision = agent_pb2.Answer(), agent_pb2.Decision()
    try:
        answer.ParseFromString(statement)
        decision.ParseFromString(answer.decision)
    except Exception as error:  # protobuf's DecodeError has a different path in each of its back ends
        raise ValueError(f"entry {seq} cannot be read") from error
    return Own(int(seq), int(at_ms), statement, decision, answer.signature)


def _problems(journal: Sequence[Own], institution: str, identity_keys: Sequence[bytes]) -> Iterable[str]:
    tree = Frontier()
    for own in journal:
        if own.number != tree.size:
            yield f"entry {tree.size} is missing"
            return  # whatever comes after it is shifted
        if own.decision.institution != institution or not _signed(own, identity_keys):
            yield f"entry {own.number} is not signed by {institution}"
        if (own.decision.own_size, own.decision.own_root) != (tree.size, tree.root()):
            yield f"something before entry {own.number} is not what it was when that was signed"
            return
        tree.append(leaf_hash(own.statement))


def _signed(own: Own, identity_keys: Sequence[bytes]) -> bool:
    answer = agent_pb2.Answer.FromString(own.statement)
    for key in identity_keys:
        try:
            keys.verify(key, own.signature, frame("decision", answer.decision), what="a decision")
        except CohortiumError:
            continue
        return True
    return False
