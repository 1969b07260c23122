"""The serving side of the wire: credentials, ports, who is calling, and the one wrapper every method wears."""

from __future__ import annotations

import errno
import functools
import inspect
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import lru_cache
from typing import Any, TypeVar, cast

import grpc
from cryptography import x509

from queries.errors import ConfigError, IdentityError, PolicyDenied
from trust.identity import x509 as certificates
from trust.identity.names import Peer
from trust.rpc import errors
from trust.rpc.channel import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, MAX_MESSAGE_BYTES, split_address

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # by default two coordinators would share one port in silence
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # Without this a server allows one ping in five minutes and cuts off agents that keep a NAT's mapping alive.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 3),
)
_Method = TypeVar("_Method", bound=Callable[..., Any])


def reports_errors(*roles: str) -> Callable[[_Method], _Method]:
    """Wrap a servicer's method (coroutine or async generator): only peers of these roles, and errors as statuses.

    The method finds its caller with `peer_of(context)` and asks the directory whether that one is still admitted: TLS
    alone knows nothing of revocation.
    """
    allowed = frozenset(roles)

    def check(context: grpc.aio.ServicerContext[Any, Any]) -> None:
        caller = peer_of(context)
        if caller.role not in allowed:
            raise PolicyDenied(
                f"this is not for the role {caller.role!r}",
                rule="role",
                hint=f"it is for: {', '.join(sorted(allowed))}; ask your operator for an invitation in that role",
            )

    return functools.partial(_wrap, check)


def open_to_strangers(method: _Method) -> _Method:
    """Wrap a method that a newcomer calls without a certificate: errors become statuses, nobody is checked."""
    return _wrap(lambda _context: None, method)


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """Return who the verified client certificate names. Raises IdentityError where there is none."""
    found = cast("Mapping[str, Any]", context.auth_context()).get("x509_pem_cert")
    if not found:
        raise IdentityError("this call needs a certificate of the consortium", hint="enrol first")
    return _peer_of_pem(bytes(found[0]))


@lru_cache(maxsize=4096)
def _peer_of_pem(pem: bytes) -> Peer:
    return certificates.peer_of(x509.load_pem_x509_certificate(pem))


def mutual_credentials(key_pem: bytes, chain_pem: bytes, ca_pem: bytes) -> grpc.ServerCredentials:
    """Return credentials that demand a client certificate under this root."""
    return grpc.ssl_server_credentials([(key_pem, chain_pem)], ca_pem, require_client_auth=True)


def enrolment_credentials(key_pem: bytes, chain_pem: bytes) -> grpc.ServerCredentials:
    """Return credentials for the enrolment port: the server proves itself, the newcomer brings an invitation."""
    return grpc.ssl_server_credentials([(key_pem, chain_pem)])


def new_server() -> grpc.aio.Server:
    """Return a server with our limits; add services, `bind`, then start it."""
    return grpc.aio.server(options=OPTIONS)


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    """Listen on HOST:PORT (port 0: any free one) and return the port. Raises ConfigError saying why it cannot."""
    host, port = split_address(address)
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise _bind_error(host, port) from None


def _bind_error(host: str, port: int) -> ConfigError:
    try:
        family, kind, protocol, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(sockaddr)
    except socket.gaierror:
        return ConfigError(f"there is no host {host!r} to listen on", hint="set `listen` in server.toml")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return ConfigError(
                f"port {port} of {host} is taken",
                hint="is a coordinator running already? Else set other ports in server.toml",
            )
        return ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", hint="set `listen` in server.toml")
    return ConfigError(f"cannot listen on {host}:{port}", hint="set `listen` in server.toml")


def _wrap(check: Callable[[grpc.aio.ServicerContext[Any, Any]], None], method: _Method) -> _Method:
    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def stream(
            servicer: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            try:
                check(context)
                async with aclosing(method(servicer, request, context)) as messages:
                    async for message in messages:
                        yield message
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # whatever it is, only its status may leave
                await errors.abort(context, error)

        return cast("_Method", stream)

    @functools.wraps(method)
    async def unary(servicer: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            check(context)
            return await method(servicer, request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # whatever it is, only its status may leave
            return await errors.abort(context, error)

    return cast("_Method", unary)
