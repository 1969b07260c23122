"""Names of consortia and participants, and the SPIFFE identity that binds both to a role.

`spiffe://<consortium>/<role>/<id>` is what a certificate says. It tells who connects; who may do what is told by the
membership document alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from queries.errors import IdentityError

PARTICIPANT_ROLES = ("agent", "analyst", "auditor", "steward", "operator")
ROLES = (*PARTICIPANT_ROLES, "coordinator")
_CONSORTIUM = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_PARTICIPANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SPIFFE = re.compile(r"spiffe://([^/]+)/([^/]+)/([^/]+)")


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a connection. `serial` is its certificate's, `tls_key` SHA-256 of the key in it, both in hex.

    Both are "" where there is no certificate yet.
    """

    consortium: str
    role: str
    id: str
    serial: str = ""
    tls_key: str = ""

    @property
    def uri(self) -> str:
        """The SPIFFE URI that a certificate carries."""
        return f"spiffe://{self.consortium}/{self.role}/{self.id}"


def check_consortium(name: str) -> str:
    """Return the name, or raise IdentityError: it appears in URIs, DNS names and log origins."""
    if not _CONSORTIUM.fullmatch(name):
        raise IdentityError(
            f"{name[:80]!r} is no consortium name", hint="lower-case letters, digits and inner hyphens, at most 40"
        )
    return name


def check_participant(name: str) -> str:
    """Return the id of a participant, or raise IdentityError."""
    if not _PARTICIPANT.fullmatch(name):
        raise IdentityError(
            f"{name[:80]!r} is no participant id",
            hint="lower-case letters, digits, '.', '_' and '-', at most 63, starting with a letter or digit",
        )
    return name


def check_organisation(name: str) -> str:
    """Return the organisation's name, or raise IdentityError: it is compared exactly when cohorts are counted."""
    if not name or len(name) > 200 or not name.isprintable() or name != " ".join(name.split()):
        raise IdentityError(
            f"{name[:80]!r} is no organisation name", hint="printable text of at most 200 characters, single spaces"
        )
    return name


def parse_uri(uri: str) -> Peer:
    """Parse a SPIFFE URI. Raises IdentityError on anything that this consortium software would not have written."""
    match = _SPIFFE.fullmatch(uri)
    if match is None or match[2] not in ROLES:
        raise IdentityError(f"{uri[:120]!r} is no identity of a consortium")
    return Peer(check_consortium(match[1]), match[2], check_participant(match[3]))
