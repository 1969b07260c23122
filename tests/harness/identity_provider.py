"""A small OpenID Connect provider, as a process of its own: discovery, JWKS and the device grant, over TLS.

`python identity_provider.py FOLDER` makes a certificate and a signing key, writes FOLDER/ready.json (issuer, CA file),
and serves. In the place of a person with a browser, a test posts to /sign-in: user_code, and the claims to be said of
whoever signs in, or deny=1. Real signatures by joserfc; nothing of Cohortium is imported.
"""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "cohortium"
INTERVAL_S = 0.1


class Provider:
    """What the process keeps: its key, and who is signing in."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.issuer = ""
        self.lock = threading.Lock()
        self.pending: dict[str, dict[str, Any]] = {}

    def get(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/jwks",
                "device_authorization_endpoint": f"{self.issuer}/device",
                "token_endpoint": f"{self.issuer}/token",
            }
        return {"keys": [self.key.as_dict(private=False)]} if path == "/jwks" else None

    def post(self, path: str, form: dict[str, str]) -> dict[str, Any]:
        with self.lock:
            if path == "/device":
                code = secrets.token_hex(16)
                self.pending[code] = {
                    "user_code": secrets.token_hex(4).upper(),
                    "client_id": form["client_id"],
                    "nonce": form.get("nonce", ""),
                    "polls": 0,
                }
                return {
                    "device_code": code,
                    "user_code": self.pending[code]["user_code"],
                    "verification_uri": f"{self.issuer}/activate",
                    "expires_in": 60,
                    "interval": INTERVAL_S,
                }
            if path == "/sign-in":
                code = form.pop("user_code")
                flow = next(flow for flow in self.pending.values() if flow["user_code"] == code)
                flow["denied"], flow["claims"] = bool(form.pop("deny", "")), json.loads(form.get("claims", "{}"))
                return {}
            return self._token(form)

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        flow = self.pending.get(form.get("device_code", ""))
        if flow is None or flow["client_id"] != form.get("client_id"):
            return {"error": "invalid_grant"}
        flow["polls"] += 1
        if flow.get("denied"):
            return {"error": "access_denied"}
        if flow["polls"] == 1 or "claims" not in flow:
            return {"error": "authorization_pending"}
        del self.pending[form["device_code"]]
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": flow["client_id"],
            "iat": now,
            "exp": now + 300,
            "nonce": flow["nonce"],
        } | flow["claims"]
        return {"id_token": jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key), "token_type": "Bearer"}


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    chain, private = folder / "tls.pem", folder / "tls.key"
    chain.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return chain, private


def main(folder: Path) -> None:
    """Serve until killed."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(provider.get(self.path))

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            self._answer(provider.post(self.path, dict(urllib.parse.parse_qsl(text))))

        def _answer(self, document: dict[str, Any] | None) -> None:
            status = 404 if document is None else 400 if "error" in document else 200
            body = json.dumps(document or {}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    chain, private = _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    provider.issuer = f"https://127.0.0.1:{server.server_address[1]}"
    ready = {"issuer": provider.issuer, "ca": str(chain), "key": provider.key.as_dict(private=True)}
    (folder / "ready.tmp").write_text(json.dumps(ready))
    (folder / "ready.tmp").rename(folder / "ready.json")
    server.serve_forever()


@contextmanager
def identity_provider(folder: Path) -> Iterator[dict[str, Any]]:
    """Run it in a process of its own; gives what ready.json says: `issuer`, `ca`, and its private `key` (JWK)."""
    folder.mkdir()
    process = subprocess.Popen([sys.executable, __file__, str(folder)])
    try:
        end = time.monotonic() + 30
        while not (folder / "ready.json").exists():
            assert process.poll() is None, "the identity provider did not start"
            assert time.monotonic() < end
            time.sleep(0.05)
        yield json.loads((folder / "ready.json").read_text())
    finally:
        process.kill()
        process.wait()


def as_browser(provider: dict[str, Any], user_code: str, *, deny: bool = False, **claims: object) -> None:
    """Do what a person does with a browser: sign in, and agree or not."""
    form = {"user_code": user_code, "claims": json.dumps(claims)} | ({"deny": "1"} if deny else {})
    context = ssl.create_default_context(cafile=provider["ca"])
    httpx.post(f"{provider['issuer']}/sign-in", data=form, verify=context).raise_for_status()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
