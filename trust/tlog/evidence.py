"""Two heads that cannot be of one log, kept so that a stranger can check it without taking anybody's word.

A head is either a note that the log's key signed, or what an institution signed in a decision that it was shown. Two
notes of one size with different roots prove a fork by themselves. Of different sizes, they prove one together with the
entries that the larger one covers. Must not know: files, connections, clocks.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.message import DecodeError

from protos.v1 import agent_pb2
from queries.errors import CohortiumError, ConfigError, LogError
from trust.identity import keys, membership
from trust.identity.membership import MembershipDocument
from trust.tlog.checkpoint import open_checkpoint
from trust.tlog.merkle import verify_consistency
from trust.tlog.notes import Verifier
from trust.transcript import digest, frame

FORMAT = "cohortium-evidence-v1"
MAX_BYTES = 16 << 20
Kind = Literal["proven", "word", "open", "none"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A head as somebody was shown it. `note` is signed by the log, `statement` (an Answer) by the institution."""

    to: str
    size: int
    root: bytes
    note: bytes = b""
    statement: bytes = b""


class Contradiction(LogError):
    """Two heads that are not of one log, with the proof that was offered and does not lead from one to the other."""

    def __init__(
        self, message: str, *, hint: str = "", heads: tuple[Shown, Shown], proof: Sequence[bytes] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.heads = heads
        self.proof = tuple(proof)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found, by whom, and everything that it takes to check it. `memberships` are envelopes."""

    found: str
    found_by: str
    at: int
    """By the finder's clock, unix seconds."""
    heads: tuple[Shown, ...]
    proof: tuple[bytes, ...]
    memberships: tuple[bytes, ...]
    governance_key: bytes

    @property
    def name(self) -> str:
        """What the same contradiction is called whenever it is found: 16 hex digits."""
        parts = [part for h in self.heads for part in (h.to.encode(), h.size.to_bytes(8, "big"), h.root, h.note)]
        return digest("evidence", *parts).hex()[:16]

    def to_bytes(self) -> bytes:
        """Return a JSON document; signed bytes in base64, hashes in hex."""
        heads = [
            {"to": h.to, "size": h.size, "root": h.root.hex(), "note": _text(h.note), "statement": _text(h.statement)}
            for h in self.heads
        ]
        document = {
            "format": FORMAT,
            "found": self.found,
            "found_by": self.found_by,
            "at": self.at,
            "governance_key": self.governance_key.hex(),
            "heads": heads,
            "proof": [part.hex() for part in self.proof],
            "memberships": [_text(envelope) for envelope in self.memberships],
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Evidence:
        """Parse what `to_bytes` wrote. Nothing in it is to be believed. Raise ConfigError on anything else."""
        try:
            if len(data) > MAX_BYTES:
                raise ValueError("too large")
            read = json.loads(data)
            if read["format"] != FORMAT:
                raise ValueError("another format")
            return cls(
                found=_line(read["found"]),
                found_by=_line(read["found_by"]),
                at=int(read["at"]),
                heads=tuple(_shown(head) for head in read["heads"]),
                proof=tuple(bytes.fromhex(part) for part in read["proof"]),
                memberships=tuple(_bytes(envelope) for envelope in read["memberships"]),
                governance_key=bytes.fromhex(read["governance_key"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError("this is no evidence file", hint=f"one says {FORMAT} at its beginning") from error


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence shows, and why, line by line.

    "proven": the log's key signed two heads that no one log has. "word": an institution signed that it was shown
    another log. "open": it takes the entries of the log to decide. "none": no contradiction.
    """

    kind: Kind
    lines: tuple[str, ...]


def examine(evidence: Evidence, governance_key: bytes, roots: Mapping[int, bytes] | None = None) -> Verdict:
    """Check every signature in the evidence and say what it shows. Nothing but `governance_key` is trusted.

    `roots` are the roots that a copy of the log's entries gives, by size, as far as it goes. Raise LogError or
    SignatureError where something in the file is not signed by whom it says.
    """
    documents = _documents(evidence, governance_key)
    lines, heads = [], []
    for head in evidence.heads:
        by = _signer(head, documents)
        heads.append((head, by))
        lines.append(
            f"a log of {head.size} entries, root {head.root.hex()[:16]}..., shown to {head.to}: signed by {by}"
        )
    if len(heads) != 2:
        raise LogError("evidence of a contradiction has two heads")
    (first, by_first), (second, by_second) = sorted(heads, key=lambda item: item[0].size)
    kind, why = _compare(first, second, evidence.proof, roots)
    if kind == "proven" and not by_first == by_second == "the log":
        kind = "word"
    return Verdict(kind, (*lines, why))


def _compare(
    first: Shown, second: Shown, proof: Sequence[bytes], roots: Mapping[int, bytes] | None
) -> tuple[Kind, str]:
    """Say whether one log can have both heads; the first is not the larger one."""
    if first.size == second.size:
        same = first.root == second.root
        return ("none", "both are the same head") if same else ("proven", "one size, two roots: no log has both")
    if _leads(first, second, proof):
        return "none", "the proof leads from one to the other: they are of one log"
    if roots is None or first.size not in roots or second.size not in roots:
        return "open", f"the entries that the head of {second.size} covers decide: --export or --database"
    if roots[second.size] != second.root:
        return "open", f"these entries are not those of the head of {second.size}: get the ones that are"
    if roots[first.size] == first.root:
        return "none", "the entries have both heads: the proof was wrong, the log is one"
    return "proven", f"the entries of the larger head have another root at size {first.size}"


def _documents(evidence: Evidence, governance_key: bytes) -> list[MembershipDocument]:
    if not evidence.memberships:
        raise LogError("the evidence has no membership: nothing says which key signs the log")
    return [membership.verify(envelope, governance_key) for envelope in evidence.memberships]


def _signer(head: Shown, documents: Sequence[MembershipDocument]) -> str:
    """Return whose signature says that there was this head. Raise LogError where none does."""
    if head.note:
        for document in documents:
            try:
                found = open_checkpoint(head.note, document.log_origin, Verifier(document.log_origin, document.log_key))
            except LogError:
                continue
            if (found.size, found.root) == (head.size, head.root):
                return "the log"
        raise LogError(f"the head shown to {head.to} is not signed by the log")
    answer, decision = agent_pb2.Answer(), agent_pb2.Decision()
    try:
        answer.ParseFromString(head.statement)
        decision.ParseFromString(answer.decision)
    except DecodeError as error:
        raise LogError(f"the statement of {head.to} cannot be read") from error
    if not head.statement or (decision.institution, decision.log_size, decision.log_root) != (
        head.to,
        head.size,
        head.root,
    ):
        raise LogError(f"nothing shows that {head.to} was shown this head")
    message = frame("decision", answer.decision)
    for document in documents:
        for key in document.keys_in_use(head.to):
            try:
                keys.verify(key, answer.signature, message, what="a decision")
            except CohortiumError:
                continue
            return head.to
    raise LogError(f"the statement of {head.to} is not signed by it")


def _leads(first: Shown, second: Shown, proof: Sequence[bytes]) -> bool:
    try:
        verify_consistency(first.size, first.root, second.size, second.root, proof)
    except LogError:
        return False
    return True


def _shown(read: dict[str, Any]) -> Shown:
    size = read["size"]
    if type(size) is not int or size < 0:
        raise ValueError("no size")
    return Shown(_line(read["to"]), size, bytes.fromhex(read["root"]), _bytes(read["note"]), _bytes(read["statement"]))


def _line(text: str) -> str:
    """Return a text that cannot drive a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)[:400]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
