"""The calling side of the wire: channels that verify the coordinator, and a plain answer when none can be had.

A client checks that the server's certificate names *the coordinator of this consortium*, whatever address it dialled.
gRPC's own words for a failed connection tell little, so a failure is looked into with a plain TLS handshake.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc
import grpc.aio
from cryptography import x509

from queries.errors import ClockError, CohortiumError, ConfigError, IdentityError, ServiceError
from trust.identity.x509 import server_name

MAX_MESSAGE_BYTES = 4 << 20
WINDOW_BYTES = 4 << 20
"""What may be on its way unread, per stream and connection; at 50 ms it carries 80 MB/s.

Fixed, because gRPC would else let it grow with the bandwidth that it measures, and with it the memory of a reader that
is slower than its senders.
"""
KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 3.0
"""How long to wait for a connection; with `PROBE_TIMEOUT_S` for the diagnosis a user waits less than 5 s."""
PROBE_TIMEOUT_S = 1.2
CALL_DEADLINE_S = 10.0
"""For calls answered from the coordinator's own state."""
ROUND_DEADLINE_S = 120.0
"""For calls that wait for a whole round."""
_ATTEMPTS = (1, 2)
"""A coordinator that was away at the first and answers the diagnosis has just come up: one more tells."""
_SETTLED = frozenset({grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE})

_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What a client brings: the consortium's root and, once enrolled, its own chain and key; all PEM."""

    consortium: str
    ca: bytes = field(repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT or [IPV6]:PORT. Raises ConfigError on anything else."""
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host) or not (port.isascii() and port.isdigit()):
        raise ConfigError(f"{address[:120]!r} is no address", hint="write HOST:PORT, for example localhost:7443")
    if int(port) > 65535:
        raise ConfigError(f"{address[:120]!r} has no possible port", hint="ports go up to 65535")
    return bare, int(port)


def connect(address: str, identity: TlsIdentity, *, timeout: float = CONNECT_TIMEOUT_S) -> grpc.Channel:
    """Return a connected channel, or raise within `timeout` + 2.4 seconds.

    ServiceError: nobody there, or too slow. IdentityError: not this consortium's coordinator, or it does not accept our
    certificate. ClockError: certificates and this machine's clock disagree.
    """
    split_address(address)
    end = time.monotonic() + timeout
    for attempt in _ATTEMPTS:
        channel = grpc.secure_channel(address, _credentials(identity), options=_options(identity.consortium))
        state = _settled(channel, end - time.monotonic())
        if state == grpc.ChannelConnectivity.READY:
            return channel
        channel.close()
        found = diagnose(address, identity)
        if found is not None or state is None or attempt == _ATTEMPTS[-1]:
            raise found or _not_accepted(address, slow=state is None)
    raise AssertionError("the last attempt returns or raises")


def _settled(channel: grpc.Channel, timeout: float) -> grpc.ChannelConnectivity | None:
    """Return READY or TRANSIENT_FAILURE, whichever comes first; None where neither does in time."""
    settled = threading.Event()
    reached: list[grpc.ChannelConnectivity] = []

    def watch(state: grpc.ChannelConnectivity) -> None:
        reached.append(state)
        if state in _SETTLED:
            settled.set()

    channel.subscribe(watch, try_to_connect=True)
    settled.wait(max(timeout, 0.0))
    channel.unsubscribe(watch)
    if grpc.ChannelConnectivity.READY in reached:
        return grpc.ChannelConnectivity.READY
    return grpc.ChannelConnectivity.TRANSIENT_FAILURE if settled.is_set() else None


async def connect_aio(address: str, identity: TlsIdentity, *, timeout: float = CONNECT_TIMEOUT_S) -> grpc.aio.Channel:
    """As `connect`, for the running event loop."""
    split_address(address)
    end = asyncio.get_running_loop().time() + timeout
    for attempt in _ATTEMPTS:
        channel = grpc.aio.secure_channel(address, _credentials(identity), options=_options(identity.consortium))
        reached: grpc.ChannelConnectivity | None = None
        try:
            async with asyncio.timeout_at(end):
                state = channel.get_state(try_to_connect=True)
                while state not in _SETTLED:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
                reached = state
        except TimeoutError:
            pass  # too slow, which is told below
        if reached == grpc.ChannelConnectivity.READY:
            return channel
        await channel.close(None)
        found = await asyncio.to_thread(diagnose, address, identity)
        if found is not None or reached is None or attempt == _ATTEMPTS[-1]:
            raise found or _not_accepted(address, slow=reached is None)
    raise AssertionError("the last attempt returns or raises")


def diagnose(address: str, identity: TlsIdentity) -> CohortiumError | None:
    """Return why no channel could be had: look at our certificate, then dial and shake hands once, at most 1.2 s.

    None where this consortium's coordinator answers now: then it did not accept our certificate, or was not up yet.
    """
    own = _own_certificate_error(identity)
    if own is not None:
        return own
    found: list[CohortiumError | None] = []
    # In a thread of its own, because a resolver that hangs obeys no timeout.
    prober = threading.Thread(target=lambda: found.append(_probe(address, identity)), daemon=True)
    prober.start()
    prober.join(PROBE_TIMEOUT_S)
    return found[0] if found else _unreachable(address, "no answer")


def _not_accepted(address: str, *, slow: bool) -> CohortiumError:
    """Say why a coordinator that answers is not connected to. What is only slow must not look final: agents retry."""
    if slow:
        return ServiceError(f"the coordinator at {address} did not answer in time", hint="try again later")
    return IdentityError(
        f"the coordinator at {address} does not accept this certificate",
        hint="it may be of another consortium of the same name, or reissued since: ask your operator for an invitation",
    )


def _probe(address: str, identity: TlsIdentity) -> CohortiumError | None:
    host, port = split_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.ca.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=server_name(identity.consortium)),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        return _server_certificate_error(address, identity.consortium, error.verify_code)
    except OSError as error:
        return _socket_error(address, error)
    if identity.certificate is None:
        return ServiceError(f"the server at {address} accepts no newcomers", hint="check the port of the invitation")
    return None


def _socket_error(address: str, error: OSError) -> ServiceError:
    match error:
        case ssl.SSLError():
            return ServiceError(f"what answers at {address} speaks no TLS", hint="check the port")
        case socket.gaierror():
            return _unreachable(address, "no such host")
        case TimeoutError():
            return _unreachable(address, "no answer")
        case _:
            return _unreachable(address, (error.strerror or "failed").lower())


def _unreachable(address: str, why: str) -> ServiceError:
    return ServiceError(
        f"no coordinator can be reached at {address}: {why}", hint="check the address, and that it is running"
    )


def _server_certificate_error(address: str, consortium: str, verify_code: int) -> CohortiumError:
    if verify_code in {_NOT_YET_VALID, _EXPIRED}:
        what = "not valid yet" if verify_code == _NOT_YET_VALID else "expired"
        return ClockError(
            f"the certificate of the coordinator at {address} is {what} by this machine's clock",
            hint="check this machine's clock; if it is right, tell your operator",
        )
    return IdentityError(
        f"the server at {address} is no coordinator of consortium {consortium!r}",
        hint="check the address; never go on with another certificate",
    )


def _own_certificate_error(identity: TlsIdentity) -> CohortiumError | None:
    if identity.certificate is None:
        return None
    own = x509.load_pem_x509_certificates(identity.certificate)[0]
    now = datetime.now(UTC)
    if now > own.not_valid_after_utc:
        return IdentityError(
            f"this participant's certificate expired on {own.not_valid_after_utc:%Y-%m-%d}",
            hint="ask your operator for a new invitation",
        )
    if now < own.not_valid_before_utc:
        return ClockError("this participant's certificate is not valid yet", hint="check this machine's clock")
    return None


def _credentials(identity: TlsIdentity) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(identity.ca, identity.key, identity.certificate)


def _options(consortium: str) -> Sequence[tuple[str, str | int]]:
    return (
        ("grpc.ssl_target_name_override", server_name(consortium)),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    )
