"""The log as a FHIR R4 Bundle of AuditEvents, for a hospital's own audit repository.

Entries about requests follow the Query pattern of IHE BALP (who asked is the source, the coordinator the destination,
what was asked an entity in the role of a query), with DICOM's code for a query in place of "RESTful operation", which
ours is not. Sources: hl7.org/fhir/R4/auditevent.html, profiles.ihe.net/ITI/BALP, DICOM PS3.16 CID 400 to 403. Every
event carries the number and the hash of its entry, so that it can be held to the log. Pure.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from analytics_client.audit.history import Entry
from protos.v1 import log_pb2
from queries.errors import LogError
from trust.tlog.entries import columns, decode, moment, sentence
from trust.tlog.merkle import leaf_hash

_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_ENTITY = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_SOURCE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_NAMESPACE = uuid.UUID("1f0e9d5a-6f0c-5c55-9a57-0b4a3b6d6a11")
"""Of the name-based ids of events: the same entry has the same id in every export."""

_TYPES: dict[str, tuple[str, str, str]] = {
    "log_started": ("110100", "Application Activity", "E"),
    "invited": ("110113", "Security Alert", "C"),
    "enrolled": ("110113", "Security Alert", "C"),
    "revoked": ("110113", "Security Alert", "D"),
    "identity_changed": ("110113", "Security Alert", "U"),
    "membership_published": ("110113", "Security Alert", "U"),
    "dataset_published": ("110113", "Security Alert", "U"),
    "requested": ("110112", "Query", "E"),
    "decided": ("110112", "Query", "E"),
    "round_ended": ("110112", "Query", "E"),
    "released": ("110106", "Export", "R"),
    "failed": ("110112", "Query", "E"),
    "stated": ("110113", "Security Alert", "U"),
    "key_change_asked": ("110113", "Security Alert", "U"),
    "key_changed": ("110113", "Security Alert", "U"),
    "service_scoped": ("110113", "Security Alert", "U"),
    "shard_sealed": ("110100", "Application Activity", "E"),
    "shard_expired": ("110100", "Application Activity", "D"),
    "log_read": ("110101", "Audit Log Used", "R"),
}
"""Event -> code and display of CID 400, and the action: create, read, update, delete, execute."""
_SUBTYPES: dict[str, tuple[str, str]] = {
    "log_started": ("110134", "Audit Recording Started"),
    "invited": ("110137", "User Security Attributes Changed"),
    "enrolled": ("110137", "User Security Attributes Changed"),
    "revoked": ("110137", "User Security Attributes Changed"),
    "identity_changed": ("110137", "User Security Attributes Changed"),
    "membership_published": ("110136", "Security Roles Changed"),
    "dataset_published": ("110135", "Object Security Attributes Changed"),
    "key_change_asked": ("110137", "User Security Attributes Changed"),
    "key_changed": ("110137", "User Security Attributes Changed"),
    "service_scoped": ("110137", "User Security Attributes Changed"),
    "stated": ("110137", "User Security Attributes Changed"),
}
OTHER = ("110100", "Application Activity", "E")
SUCCESS, MINOR, SERIOUS = "0", "4", "8"


def bundle(entries: Iterable[Entry], consortium: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (fullUrl, AuditEvent) for every entry, in order. Entries that cannot be decoded are minor failures."""
    asked: dict[bytes, log_pb2.Requested] = {}
    for entry in entries:
        identifier = uuid.uuid5(_NAMESPACE, f"{consortium}/{entry.seq}/{leaf_hash(entry.leaf).hex()}")
        yield (
            f"urn:uuid:{identifier}",
            {"resourceType": "AuditEvent", "id": str(identifier)} | _event(entry, consortium, asked),
        )


def _event(entry: Entry, consortium: str, asked: dict[bytes, log_pb2.Requested]) -> dict[str, Any]:
    observer = {
        "site": consortium,
        "observer": {"display": f"log of {consortium}"},
        "type": [_coding(_SOURCE, "4", "Application Server")],
    }
    try:
        decoded = decode(entry.leaf)
    except LogError:
        return {
            "type": _coding(_DICOM, *OTHER[:2]),
            "action": OTHER[2],
            "recorded": "1970-01-01T00:00:00.000+00:00",
            "outcome": MINOR,
            "outcomeDesc": "the entry cannot be decoded",
            "agent": [{"who": {"display": "unknown"}, "requestor": True}],
            "source": observer,
            "entity": [_log_entry(entry)],
        }
    kind = decoded.WhichOneof("event") or ""
    if kind == "requested":
        asked[decoded.requested.request_id] = decoded.requested
    code, display, action = _TYPES.get(kind, OTHER)
    found = columns(decoded)
    event: dict[str, Any] = {"type": _coding(_DICOM, code, display)}
    if kind in _SUBTYPES:
        event["subtype"] = [_coding(_DICOM, *_SUBTYPES[kind])]
    at = moment(decoded.at_ms)
    event |= {
        "action": action,
        "recorded": at if at[0].isdigit() else "1970-01-01T00:00:00.000+00:00",
        "outcome": {"denied": SERIOUS, "failed": SERIOUS}.get(found.outcome, SUCCESS),
        "outcomeDesc": sentence(entry.seq, decoded)[28:].partition(": ")[2] or kind or "unknown",
    }
    request = asked.get(getattr(getattr(decoded, kind), "request_id", b"")) if kind else None
    if request is not None:
        event["purposeOfEvent"] = [{"text": request.purpose}]
    event["agent"] = _agents(decoded.actor, request, consortium)
    event["source"] = observer
    event["entity"] = [_log_entry(entry), *(_request_entities(request) if request is not None else ())]
    return event


def _agents(actor: str, request: log_pb2.Requested | None, consortium: str) -> list[dict[str, Any]]:
    """Return who acted and, for what concerns a request, in whose name."""
    asks = request is not None and actor == request.analyst
    acting: dict[str, Any] = {"who": _reference(actor, consortium), "requestor": request is None or asks}
    if request is None:
        return [acting]
    source = {"type": {"coding": [_coding(_DICOM, "110153", "Source Role ID")]}}
    destination = {"type": {"coding": [_coding(_DICOM, "110152", "Destination Role ID")]}}
    if asks:
        return [source | acting, destination | {"who": _reference("coordinator", consortium), "requestor": False}]
    return [
        destination | acting,
        source | {"who": _reference(request.analyst, consortium), "requestor": True},
    ]


def _request_entities(request: log_pb2.Requested) -> list[dict[str, Any]]:
    details = [
        ("rho_nano", str(request.rho_nano)),
        ("minimum_cohort", str(request.minimum_cohort)),
    ]
    return [
        {
            "what": {"display": request.dataset or "no dataset"},
            "type": _coding(_ENTITY, "2", "System Object"),
            "role": _coding(_ROLE, "24", "Query"),
            "description": request.shape or "no shape",
            "query": base64.b64encode((request.shape or "no shape").encode()).decode(),
            "detail": [{"type": name, "valueString": value} for name, value in details if value],
        },
        {
            "what": {"identifier": {"value": request.request_id.hex() or "none"}},
            "type": {
                "system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType",
                "code": "XrequestId",
            },
        },
    ]


def _log_entry(entry: Entry) -> dict[str, Any]:
    return {
        "what": {"identifier": {"value": str(entry.seq)}, "display": f"entry {entry.seq}"},
        "type": _coding(_ENTITY, "2", "System Object"),
        "role": _coding(_ROLE, "13", "Security Resource"),
        "detail": [{"type": "leaf_hash", "valueString": leaf_hash(entry.leaf).hex()}],
    }


def _reference(participant: str, consortium: str) -> dict[str, Any]:
    """Name a participant by its pseudonymous id; who that is stays in the coordinator's own table."""
    return {"identifier": {"system": f"urn:cohortium:{consortium}", "value": participant or "unknown"}}


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}
