"""CohortiumError to gRPC status and back, in one table, with the details of google.rpc.ErrorInfo.

`reason` is the error's code; `metadata` carries hint, rule, party, line and column where the error has them. Whatever
is no CohortiumError crosses the wire as an incident number only: its text may hold anything.
"""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from queries import errors
from queries.errors import CohortiumError, IdentityError, ServiceError

DOMAIN = "cohortium"
DETAILS_KEY = "grpc-status-details-bin"
INCIDENT = "incident"
_MAX_TEXT = 1000  # all trailing metadata must fit gRPC's default of 8 KiB
_FIELDS = ("rule", "party", "line", "column")

_STATUS: Mapping[type[CohortiumError], grpc.StatusCode] = {
    errors.QueryError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SqlError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownName: grpc.StatusCode.INVALID_ARGUMENT,
    errors.LiteralError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SchemaError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BudgetError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.PolicyDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.AwaitingApproval: grpc.StatusCode.PERMISSION_DENIED,
    errors.IdentityError: grpc.StatusCode.UNAUTHENTICATED,
    errors.InvitationError: grpc.StatusCode.UNAUTHENTICATED,
    errors.SignatureError: grpc.StatusCode.UNAUTHENTICATED,
    errors.ClockError: grpc.StatusCode.UNAUTHENTICATED,
    errors.RoundError: grpc.StatusCode.ABORTED,
    errors.ProtocolViolation: grpc.StatusCode.ABORTED,
    errors.QuorumError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LogError: grpc.StatusCode.DATA_LOSS,
    errors.ServiceError: grpc.StatusCode.UNAVAILABLE,
}
"""Every error that may cross the wire. DataError and ConfigError speak of local files and never leave."""
_BY_CODE: Mapping[str, type[CohortiumError]] = {CohortiumError.code: CohortiumError} | {k.code: k for k in _STATUS}


def from_code(code: str, message: str, hint: str = "", fields: Mapping[str, str] | None = None) -> CohortiumError:
    """Rebuild an error from what travelled: `code` selects the class, an unknown one gives a plain CohortiumError.

    `fields` may hold rule, party, line and column. No constructor runs, so nothing is added to the message.
    """
    kind = _BY_CODE.get(code, CohortiumError)
    error: CohortiumError = kind.__new__(kind)
    Exception.__init__(error, message)
    error.message, error.hint = message, hint
    given = dict(fields or {})
    if isinstance(error, errors.PolicyDenied):
        error.rule = given.get("rule", "")
    if isinstance(error, errors.ProtocolViolation):
        error.party = given.get("party", "")
    if isinstance(error, errors.SqlError | errors.UnknownName):
        error.line, error.column = _number(given.get("line")), _number(given.get("column"))
    return error


def to_status(error: BaseException) -> status_pb2.Status:
    """Return the status for any exception; one that must not travel is logged here and becomes an incident number."""
    code = _STATUS.get(type(error)) if isinstance(error, CohortiumError) else None
    if code is None or not isinstance(error, CohortiumError):
        return _incident(error)
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)
    info.metadata["hint"] = error.hint[:_MAX_TEXT]
    for name in _FIELDS:
        value = getattr(error, name, None)
        if value:
            info.metadata[name] = str(value)[:_MAX_TEXT]
    return _status(code, error.message[:_MAX_TEXT], info)


def from_rpc_error(error: grpc.RpcError, address: str) -> CohortiumError:
    """Return the error that the far side raised, or a ServiceError or IdentityError for a failure on the way there.

    `error` is what a sync or aio call raised; `address` is named where nobody could be reached.
    """
    call: Any = error  # both kinds of RpcError are also the call, which grpc's types do not say
    info = _info(call)
    if info is not None and info.reason == INCIDENT:
        number = info.metadata.get(INCIDENT, "")
        return ServiceError(
            f"the coordinator failed on this call (incident {number})", hint="tell your operator this number"
        )
    if info is not None:
        return from_code(info.reason, call.details() or "", info.metadata.get("hint", ""), info.metadata)
    return _transport_error(call.code(), call.details() or "", address)


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Run calls, sync or awaited, so that a gRPC error is raised as a CohortiumError."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, address) from None


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """End the call with this error's status."""
    status = to_status(error)
    code = next(c for c in grpc.StatusCode if c.value[0] == status.code)
    await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
    raise asyncio.CancelledError  # not reached: grpc.aio's abort raises, which its types do not say


def _transport_error(code: grpc.StatusCode, details: str, address: str) -> CohortiumError:
    match code:
        case grpc.StatusCode.UNAVAILABLE if "CERTIFICATE_VERIFY_FAILED" in details or "Hostname Verif" in details:
            return IdentityError(
                f"the server at {address} is no coordinator of this consortium",
                hint="check the address; never go on with another certificate",
            )
        case grpc.StatusCode.UNAVAILABLE:
            return ServiceError(
                f"the connection to the coordinator at {address} failed",
                hint="is it running, and is a firewall in between?",
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServiceError(f"the coordinator at {address} did not answer in time", hint="try again later")
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServiceError(
                f"the server at {address} does not offer this call",
                hint="check the port, and that both sides are current",
            )
        case grpc.StatusCode.CANCELLED:
            return ServiceError(f"the call to {address} was cancelled")
        case _:
            return ServiceError(f"the call to {address} failed ({code.name.lower()})", hint="tell your operator")


def _incident(error: BaseException) -> status_pb2.Status:
    number = secrets.token_hex(6)
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    # The class and the place, never the text: an exception's message may quote a value or a literal.
    structlog.get_logger("cohortium").error("incident", incident=number, error=type(error).__name__, frames=frames)
    info = error_details_pb2.ErrorInfo(reason=INCIDENT, domain=DOMAIN, metadata={INCIDENT: number})
    return _status(grpc.StatusCode.INTERNAL, f"internal failure, incident {number}", info)


def _status(code: grpc.StatusCode, message: str, info: error_details_pb2.ErrorInfo) -> status_pb2.Status:
    detail = any_pb2.Any()
    detail.Pack(info)
    return status_pb2.Status(code=code.value[0], message=message, details=[detail])


def _info(call: Any) -> error_details_pb2.ErrorInfo | None:
    for key, value in call.trailing_metadata() or ():
        if key != DETAILS_KEY:
            continue
        try:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return info
        except Exception:  # malformed details (protobuf's DecodeError has no stable path): the plain status stands
            return None
    return None


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0
