"""What the institutions behind an answer say they have seen of the log, held against what its analyst is shown.

Pure: no network, no files. See `trust.tlog.gossip`.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from protos.v1 import agent_pb2, analyst_pb2
from queries.errors import LogError, SignatureError
from trust.identity import keys
from trust.identity.membership import MembershipDocument
from trust.tlog.evidence import Shown
from trust.tlog.gossip import require_one_log
from trust.transcript import frame

_TELL = "do not use this answer; tell the auditor"


def verify_witnessed(
    progress: analyst_pb2.Progress,
    survivors: Iterable[str],
    *,
    request_id: bytes,
    membership: MembershipDocument,
    head: tuple[int, bytes],
) -> None:
    """Raise LogError unless every survivor signed a yes to this request under a head of the log that has `head`.

    `head` is (size, root) of the checkpoint that came with the answer, its signature verified. Two heads that are not
    of one log are a Contradiction.
    """
    said: dict[str, agent_pb2.Decision] = {}
    proofs = {proof.old_size: list(proof.hashes) for proof in progress.consistency}
    statements: dict[str, bytes] = {}
    for statement in progress.statements:
        decision = _decision(statement, membership)
        said[decision.institution], statements[decision.institution] = decision, statement
    for survivor in survivors:
        decision = said.get(survivor, agent_pb2.Decision())
        if not decision.allowed or decision.request_id != request_id:
            raise LogError(f"the coordinator shows no consent that {survivor} signed to this request", hint=_TELL)
        if decision.epoch > membership.epoch:
            raise LogError(
                f"{survivor} decided under membership epoch {decision.epoch}, you were shown epoch {membership.epoch}: "
                "the coordinator withholds the newer one",
                hint=_TELL,
            )
        seen = Shown(survivor, decision.log_size, decision.log_root, statement=statements[survivor])
        require_one_log(seen, Shown("the analyst", *head, progress.checkpoint), proofs.get(decision.log_size, []))


def newest_epoch(progress: analyst_pb2.Progress) -> int:
    """Return the newest membership epoch that the decisions behind a release speak of, none of them verified."""
    epochs = [0]
    for statement in progress.statements:
        answer, decision = agent_pb2.Answer(), agent_pb2.Decision()
        try:
            answer.ParseFromString(statement)
            decision.ParseFromString(answer.decision)
        except DecodeError:
            continue  # `verify_witnessed` refuses it
        epochs.append(decision.epoch)
    return max(epochs)


def _decision(statement: bytes, membership: MembershipDocument) -> agent_pb2.Decision:
    answer, decision = agent_pb2.Answer(), agent_pb2.Decision()
    try:
        answer.ParseFromString(statement)
        decision.ParseFromString(answer.decision)
    except Exception as error:  # protobuf's DecodeError has a different path in each of its back ends
        raise LogError("an institution's consent cannot be read", hint=_TELL) from error
    message = frame("decision", answer.decision)
    for key in membership.keys_of(decision.institution):  # a round of a job may be from before its key was rotated
        try:
            keys.verify(key, answer.signature, message, what="a decision")
        except SignatureError:
            continue
        return decision
    raise LogError(f"the coordinator shows a consent that {decision.institution} did not sign", hint=_TELL)
