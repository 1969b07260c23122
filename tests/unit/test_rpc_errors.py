from __future__ import annotations

import inspect

import grpc
import pytest
from google.rpc import status_pb2

from queries import errors
from queries.errors import CohortiumError
from trust.rpc.errors import DETAILS_KEY, from_rpc_error, to_status

TRAVEL = [
    errors.QueryError("cannot", hint="do"),
    errors.SqlError("not SQL", hint="write SQL", line=3, column=7),
    errors.UnknownName("column", "agee", ["age", "sex"], line=1, column=2),
    errors.LiteralError("outside", hint="inside"),
    errors.SchemaError("contradiction"),
    errors.BudgetError("spent", hint="wait"),
    errors.PolicyDenied("no", rule="rule 2", hint="ask"),
    errors.AwaitingApproval("not yet", rule="rule 3", hint="ask again"),
    errors.IdentityError("who?"),
    errors.InvitationError("used", hint="new"),
    errors.SignatureError("forged"),
    errors.ClockError("late"),
    errors.RoundError("stuck"),
    errors.ProtocolViolation("liar", party="h1", hint="exclude"),
    errors.QuorumError("too few"),
    errors.LogError("entry 3"),
    errors.ServiceError("full", hint="later"),
]


class Failed(grpc.RpcError):
    """What a client sees of a call that ended with a status."""

    def __init__(self, status: status_pb2.Status, metadata: object = None) -> None:
        self._status = status
        self._metadata = ((DETAILS_KEY, status.SerializeToString()),) if metadata is None else metadata

    def code(self) -> grpc.StatusCode:
        return next(c for c in grpc.StatusCode if c.value[0] == self._status.code)

    def details(self) -> str:
        return self._status.message

    def trailing_metadata(self) -> object:
        return self._metadata


@pytest.mark.parametrize("error", TRAVEL, ids=lambda e: type(e).__name__)
def test_error_arrives_as_it_left(error: CohortiumError) -> None:
    arrived = from_rpc_error(Failed(to_status(error)), "here:1")
    assert type(arrived) is type(error)
    assert (str(arrived), arrived.message, arrived.hint) == (str(error), error.message, error.hint)
    for name in ("rule", "party", "line", "column"):
        assert getattr(arrived, name, None) == getattr(error, name, None)


def test_every_error_of_the_tree_either_travels_or_is_local() -> None:
    tree = {k for k in vars(errors).values() if inspect.isclass(k) and issubclass(k, CohortiumError)}
    assert tree == {type(e) for e in TRAVEL} | {CohortiumError, errors.DataError, errors.ConfigError}


@pytest.mark.parametrize(
    "error",
    [ValueError("patient 17 is 93"), errors.DataError("patient 17 is 93"), errors.ConfigError("/home/ada/secret")],
)
def test_text_of_what_must_not_leave_stays_here(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    status = to_status(error)
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert str(error).encode() not in status.SerializeToString()
    arrived = from_rpc_error(Failed(status), "here:1")
    assert isinstance(arrived, errors.ServiceError)
    incident = status.message.rpartition(" ")[2]
    assert incident in arrived.message
    logged = capsys.readouterr().err
    assert incident in logged
    assert type(error).__name__ in logged
    assert str(error) not in logged


def test_incidents_are_told_apart() -> None:
    assert to_status(ValueError("x")).message != to_status(ValueError("x")).message


def test_long_text_is_cut_so_that_the_metadata_fit() -> None:
    status = to_status(errors.PolicyDenied("m" * 9000, rule="r" * 9000, hint="h" * 9000))
    assert len(status.SerializeToString()) < 6000
    assert len(from_rpc_error(Failed(status), "here:1").message) == 1000


@pytest.mark.parametrize(
    ("code", "details", "kind", "text"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", errors.ServiceError, "here:1"),
        (grpc.StatusCode.UNAVAILABLE, "... CERTIFICATE_VERIFY_FAILED ...", errors.IdentityError, "here:1"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.ServiceError, "in time"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", errors.ServiceError, "does not offer"),
        (grpc.StatusCode.CANCELLED, "", errors.ServiceError, "cancelled"),
        (grpc.StatusCode.UNKNOWN, "patient 17", errors.ServiceError, "unknown"),
    ],
)
def test_failure_on_the_way_is_told_in_our_words(code, details, kind, text) -> None:
    arrived = from_rpc_error(Failed(status_pb2.Status(code=code.value[0], message=details), ()), "here:1")
    assert type(arrived) is kind
    assert text in arrived.message
    assert "patient" not in str(arrived)


@pytest.mark.parametrize("details", [b"\xff\xff", b"", status_pb2.Status(code=3).SerializeToString()])
def test_details_that_are_not_ours_are_ignored(details: bytes) -> None:
    plain = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="gone")
    arrived = from_rpc_error(Failed(plain, ((DETAILS_KEY, details),)), "here:1")
    assert isinstance(arrived, errors.ServiceError)


def test_unknown_code_of_a_newer_coordinator_keeps_its_words() -> None:
    status = to_status(errors.QuorumError("too few"))
    newer = status_pb2.Status.FromString(status.SerializeToString().replace(b"quorum", b"future"))
    arrived = from_rpc_error(Failed(newer), "here:1")
    assert type(arrived) is CohortiumError
    assert arrived.message == "too few"
