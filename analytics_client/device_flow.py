"""Signing in at an identity provider from a terminal: the OAuth 2.0 device grant (RFC 8628), for an ID token.

The person signs in with any browser, on any machine; nothing is typed here. The nonce that goes with it commits to the
identity key that was just made. Must not know: what an ID token says; the coordinator and governance check it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from queries.errors import ConfigError, IdentityError, ServiceError

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SCOPE = "openid email profile"
_TIMEOUT_S = 10.0
_INTERVAL_S, _SLOWER_S = 5.0, 5.0
_LONGEST_S = 1800.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the person is told: open `address`, and type `code`; `whole` has the code in it, or is empty."""

    address: str
    code: str
    whole: str


def sign_in(
    issuer: str,
    client_id: str,
    nonce: str,
    *,
    tell: Callable[[Prompt], None],
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Return the ID token, once the person has signed in. Blocks until then.

    Raises IdentityError (the person said no, or took too long), ServiceError (the provider cannot be reached, or does
    not offer this), ConfigError (httpx is not installed, or the address is not https).
    """
    described = _call("GET", _https(issuer).rstrip("/") + "/.well-known/openid-configuration")
    if described.get("issuer") != issuer:
        raise ServiceError(f"{issuer} describes another issuer", hint="tell your operator")
    device, token = described.get("device_authorization_endpoint"), described.get("token_endpoint")
    if not isinstance(device, str) or not isinstance(token, str):
        raise ServiceError(f"{issuer} does not offer the device grant", hint="your operator enables it (RFC 8628)")
    begun = _call("POST", _https(device), {"client_id": client_id, "scope": SCOPE, "nonce": nonce})
    try:
        code, prompt = str(begun["device_code"]), _prompt(begun)
        interval, lifetime = float(begun.get("interval", _INTERVAL_S)), min(float(begun["expires_in"]), _LONGEST_S)
    except (KeyError, TypeError, ValueError):
        raise ServiceError(f"{issuer} began no sign-in", hint="tell your operator") from None
    tell(prompt)
    end = time.monotonic() + lifetime
    while time.monotonic() < end:
        sleep(interval)
        answer = _call("POST", _https(token), {"grant_type": GRANT, "device_code": code, "client_id": client_id})
        match answer.get("error"):
            case None:
                found = answer.get("id_token")
                if not isinstance(found, str):
                    raise ServiceError(f"{issuer} gave no ID token", hint="the scope openid must be allowed there")
                return found
            case "authorization_pending":
                continue
            case "slow_down":
                interval += _SLOWER_S
            case "access_denied":
                raise IdentityError("the sign-in was refused", hint="run it again, and agree")
            case "expired_token":
                break
            case other:
                raise ServiceError(f"{issuer} ended the sign-in: {str(other)[:80]}", hint="tell your operator")
    raise IdentityError("nobody signed in within the time there was", hint="run it again")


def _prompt(begun: Mapping[str, Any]) -> Prompt:
    address, code = str(begun["verification_uri"]), str(begun["user_code"])
    whole = str(begun.get("verification_uri_complete", ""))
    if not all(text.isprintable() for text in (address, code, whole)):
        raise ValueError("not for a terminal")
    return Prompt(address, code, whole)


def _https(address: str) -> str:
    if not address.startswith("https://"):
        raise ConfigError(f"{address[:120]!r} is no address of an identity provider", hint="it begins with https://")
    return address


def _call(method: str, address: str, form: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """Return the document that the provider answers with, an error of the grant included."""
    try:
        import httpx
    except ImportError:
        raise ConfigError("signing in needs httpx", hint="pip install 'cohortium[oidc]'") from None
    try:
        answer = httpx.request(method, address, data=form, timeout=_TIMEOUT_S, follow_redirects=False)
        read = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ServiceError(
            f"the identity provider at {address} does not answer", hint="is it up, and its certificate trusted here?"
        ) from error
    if not isinstance(read, dict) or (answer.is_error and "error" not in read):
        raise ServiceError(f"the identity provider at {address} failed ({answer.status_code})", hint="try again later")
    return read
