"""Strict parsing: bytes have one valid encoding or are refused, always as MalformedMessage with the sender's name."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, EncodeError, Message

from trust.secagg.refusals import MalformedMessage

M = TypeVar("M", bound=Message)


def parse_canonical(kind: type[M], data: bytes, party: str, limit: int) -> M:
    """Return the message of type `kind` that `data` encodes canonically.

    Raises MalformedMessage, attributed to `party`, for anything else: more than `limit` bytes, no protobuf, an unknown
    or repeated field, fields out of order, a default written out.
    """
    name = kind.DESCRIPTOR.name
    if not isinstance(data, bytes):
        raise MalformedMessage(f"{party} sent a {name} message that is not a byte string", party=party)
    if len(data) > limit:
        raise MalformedMessage(f"{party} sent a {name} message of {len(data)} bytes, more than {limit}", party=party)
    message = kind()
    try:
        message.ParseFromString(data)
        message.DiscardUnknownFields()
        canonical = message.SerializeToString(deterministic=True)
    except (DecodeError, EncodeError, UnicodeError) as error:
        raise MalformedMessage(f"{party} sent a {name} message that cannot be read", party=party) from error
    if canonical != data:
        raise MalformedMessage(f"{party} sent a {name} message in an encoding that is not the valid one", party=party)
    return message


def require(condition: bool, party: str, what: str) -> None:
    """Raise MalformedMessage, attributed to `party`, unless `condition` holds."""
    if not condition:
        raise malformed(party, what)


def malformed(party: str, what: str) -> MalformedMessage:
    """Return the refusal of a message of `party` that holds `what`."""
    return MalformedMessage(f"{party} sent a malformed message: {what}", party=party)
