"""What an identity provider says of a person who enrols: an OpenID Connect ID token, checked to the last claim.

The token's nonce commits to the invitation and to the identity key that the person made, so it vouches for that key and
for nothing else: neither the coordinator nor a thief of tokens can use it for another. It opens the door once; rights
still come from the membership alone, before which governance checks the token again. OpenID Connect Core 1.0, 3.1.3.7;
RFC 7519; RFC 8725 (algorithms are ours to choose, never the token's).
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from queries.errors import ConfigError, IdentityError, ServiceError
from trust.identity.enrolment import vouching_nonce
from trust.identity.requests import SKEW
from trust.transcript import digest

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""Asymmetric ones only: with HS256 the provider's public key would be a secret that everybody knows."""
CLAIMS = ("email", "sub")
MAX_TOKEN = 16_384
MAX_AGE_S = 3600
"""A token from longer ago is of another occasion."""
_TIMEOUT_S = 10.0
_KEEP_S = 10.0
_MAX_DOCUMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class Expected:
    """Whom an invitation is for: the claim that names the person, and a hash of its value, salted by the invitation."""

    issuer: str
    client_id: str
    claim: str
    hash: str

    @classmethod
    def of(cls, issuer: str, client_id: str, person: str, invitation_id: str) -> Expected:
        """Read `person`, an e-mail address or "sub:" and a subject. Raise ConfigError on anything else."""
        claim, value = ("sub", person[4:]) if person.startswith("sub:") else ("email", person)
        if not value.strip() or len(value) > 320 or not value.isprintable() or (claim == "email" and "@" not in value):
            raise ConfigError(f"{person[:80]!r} names nobody", hint="an e-mail address, or sub:SUBJECT")
        return cls(issuer, client_id, claim, _person_hash(invitation_id, claim, value))

    @classmethod
    def from_text(cls, text: str) -> Expected | None:
        """Return what `to_text` wrote, None for ""."""
        return cls(**json.loads(text)) if text else None

    def to_text(self) -> str:
        """Return it as one line of JSON, for a store."""
        return json.dumps({"issuer": self.issuer, "client_id": self.client_id, "claim": self.claim, "hash": self.hash})


@dataclass(frozen=True, slots=True)
class Vouched:
    """A person as the provider describes it. Personal data: for the erasable table, never for the log."""

    name: str
    contact: str


def check_token(
    token: str,
    keys: Mapping[str, Any],
    expected: Expected,
    *,
    consortium: str,
    invitation_id: str,
    identity_key: bytes,
    now: int,
) -> Vouched:
    """Return whom the token is about. `keys` is the provider's JWK set, `now` unix seconds at which it has to hold.

    Raises IdentityError, saying which of signature, issuer, audience, time, nonce or person is not what it must be.
    """
    claims = _verified(token, keys)
    audiences = claims.get("aud")
    audiences = [audiences] if isinstance(audiences, str) else audiences
    if claims.get("iss") != expected.issuer:
        raise _refused("is of another issuer")
    if not isinstance(audiences, list) or expected.client_id not in audiences:
        raise _refused("was made for another application")
    if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != expected.client_id:
        raise _refused("was asked for by another application")
    issued, expires = _time(claims.get("iat")), _time(claims.get("exp"))
    if issued is None or expires is None or not issued - SKEW <= now <= expires + SKEW:
        raise _refused("is not valid now", hint="check the clocks, and sign in again")
    if now - issued > MAX_AGE_S:
        raise _refused("is too old", hint="sign in again")
    nonce = claims.get("nonce")
    wanted = vouching_nonce(consortium, invitation_id, identity_key)
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), wanted.encode()):
        raise _refused("does not vouch for this key and invitation")
    value = claims.get(expected.claim)
    if expected.claim == "email" and claims.get("email_verified") is not True:
        raise _refused("has no e-mail address that the provider has verified")
    if not isinstance(value, str) or not hmac.compare_digest(
        _person_hash(invitation_id, expected.claim, value), expected.hash
    ):
        raise _refused("is of another person than the one invited")
    return Vouched(name=_line(claims.get("name")), contact=_line(claims.get("email")))


class Provider:
    """The keys of an identity provider, fetched from where its own description says, at most every ten seconds."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._lock = threading.Lock()
        self._keys: Mapping[str, Any] = {}
        self._fetched = float("-inf")

    def keys(self) -> Mapping[str, Any]:
        """Return the JWK set. Raises ServiceError where the provider does not answer, ConfigError without https."""
        with self._lock:
            if time.monotonic() - self._fetched > _KEEP_S:
                self._keys, self._fetched = self._fetch(), time.monotonic()
            return self._keys

    def _fetch(self) -> Mapping[str, Any]:
        described = _get(check_issuer(self._issuer) + "/.well-known/openid-configuration")
        if described.get("issuer") != self._issuer:
            raise ServiceError(f"{self._issuer} describes another issuer", hint="compare [oidc] in server.toml")
        address = described.get("jwks_uri")
        if not isinstance(address, str):
            raise ServiceError(f"{self._issuer} does not say where its keys are")
        return _get(check_issuer(address))


def check_issuer(issuer: str) -> str:
    """Return the address without a trailing slash. Raise ConfigError unless it is https: what comes is trusted."""
    if not issuer.startswith("https://"):
        raise ConfigError(f"{issuer[:120]!r} is no address of an identity provider", hint="it begins with https://")
    return issuer.rstrip("/")


def _verified(token: str, keys: Mapping[str, Any]) -> Mapping[str, Any]:
    if not token or len(token) > MAX_TOKEN:
        raise _refused("is missing, or too long", hint="sign in: cohortium enrol does it with this invitation")
    try:
        usable = {"keys": [key for key in keys.get("keys", []) if key.get("use", "sig") == "sig"]}
        return jwt.decode(token, KeySet.import_key_set(usable), algorithms=ALGORITHMS).claims  # type: ignore[arg-type]  # a TypedDict
    except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused("is not signed by the identity provider") from error


def _get(address: str) -> Mapping[str, Any]:
    try:
        answer = httpx.get(address, timeout=_TIMEOUT_S, follow_redirects=False)
        answer.raise_for_status()
        read = answer.json() if len(answer.content) <= _MAX_DOCUMENT else None
    except (httpx.HTTPError, ValueError) as error:
        raise ServiceError(
            f"the identity provider at {address} does not answer", hint="is it up, and its certificate trusted here?"
        ) from error
    if not isinstance(read, dict):
        raise ServiceError(f"the identity provider at {address} answers with something else than a document")
    return read


def _person_hash(invitation_id: str, claim: str, value: str) -> str:
    plain = value.strip().casefold() if claim == "email" else value
    return digest("invited-person", invitation_id.encode(), claim.encode(), plain.encode()).hex()


def _time(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _line(value: object) -> str:
    return "".join(c for c in value if c.isprintable())[:200] if isinstance(value, str) else ""


def _refused(why: str, hint: str = "sign in again with the account that was invited") -> IdentityError:
    return IdentityError(f"the ID token {why}", hint=hint)
