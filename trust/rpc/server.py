"""The serving side of the wire: credentials, ports, who is calling, and the one wrapper every method wears."""

from __future__ import annotations

import asyncio
import errno
import functools
import inspect
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, TypeVar, cast

import grpc
from cryptography import x509

from queries.errors import ConfigError, IdentityError, PolicyDenied
from trust.identity.names import Peer
from trust.identity.x509 import peer_of
from trust.rpc import errors
from trust.rpc.channel import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, MAX_MESSAGE_BYTES, WINDOW_BYTES, split_address

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # by default two coordinators would share one port in silence
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # Without this a server allows one ping in five minutes and cuts off agents that keep a NAT's mapping alive.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 3),
)
_Method = TypeVar("_Method", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Gate:
    """Who may come in at all. `revoked` is asked on every call, and of the calls that are open by `cut_off`."""

    consortium: str
    revoked: Callable[[Peer], bool]
    _open: dict[asyncio.Task[Any], _Call] = field(default_factory=dict, repr=False, compare=False)

    def admit(self, peer: Peer, roles: frozenset[str]) -> None:
        """Return, or raise IdentityError (a stranger, or revoked) or PolicyDenied (another role's call)."""
        if peer.consortium != self.consortium:
            raise IdentityError(f"{peer.uri!r} is of another consortium")
        if self.revoked(peer):
            raise _revoked(peer)
        if peer.role not in roles:
            raise PolicyDenied(
                f"this is not for the role {peer.role!r}",
                rule="role",
                hint=f"it is for: {', '.join(sorted(roles))}; ask your operator for an invitation in that role",
            )

    @contextmanager
    def passing(self, peer: Peer) -> Iterator[_Call]:
        """Hold a call open for an admitted peer. Raises IdentityError inside, wherever it waits, once it is cut off."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - calls are served in tasks
        call = self._open[task] = _Call(task, peer)
        try:
            yield call
        except asyncio.CancelledError:
            if not call.cut:
                raise
            task.uncancel()
            raise _revoked(peer) from None
        finally:
            del self._open[task]

    def cut_off(self) -> None:
        """End the open calls of everybody who is revoked by now. To be called on the loop that serves them."""
        for call in self._open.values():
            if not call.cut and self.revoked(call.peer):
                call.end()


@dataclass
class _Call:
    """An open call. While gRPC sends a message of a stream it must not be cancelled: no status would reach the peer."""

    task: asyncio.Task[Any]
    peer: Peer
    cut: bool = False
    sending: bool = False

    def end(self) -> None:
        """Have it raise where it waits, or once what is being sent has been sent."""
        self.cut = True
        if not self.sending:
            self.task.cancel()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Hand a message to gRPC; raise IdentityError afterwards where the call was cut off meanwhile."""
        self.sending = True
        try:
            yield
        finally:
            self.sending = False
        if self.cut:
            raise _revoked(self.peer)


def _revoked(peer: Peer) -> IdentityError:
    return IdentityError(f"{peer.id!r} has been revoked", hint="ask your operator")


class Gated(Protocol):
    """A servicer whose methods wear `serves`."""

    gate: Gate


def serves(*roles: str) -> Callable[[_Method], _Method]:
    """Wrap a servicer's method (coroutine or async generator): only peers of these roles, and errors as statuses.

    The servicer has an attribute `gate`. The method finds its caller with `peer(context)`.
    """
    allowed = frozenset(roles)

    def admit(servicer: Gated, context: grpc.aio.ServicerContext[Any, Any]) -> AbstractContextManager[_Call | None]:
        caller = peer(context)
        servicer.gate.admit(caller, allowed)
        return servicer.gate.passing(caller)

    return functools.partial(_wrap, admit)


def open_to_strangers(method: _Method) -> _Method:
    """Wrap a method that a newcomer calls without a certificate: errors become statuses, nobody is checked."""
    return _wrap(lambda _servicer, _context: nullcontext(), method)


def peer(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """Return who the verified client certificate names. Raises IdentityError where there is none."""
    found = cast("Mapping[str, Any]", context.auth_context()).get("x509_pem_cert")
    if not found:
        raise IdentityError("this call needs a certificate of the consortium", hint="enrol first")
    return _peer_of_pem(bytes(found[0]))


@lru_cache(maxsize=4096)
def _peer_of_pem(pem: bytes) -> Peer:
    return peer_of(x509.load_pem_x509_certificate(pem))


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


def _wrap(
    admit: Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AbstractContextManager[_Call | None]], method: _Method
) -> _Method:
    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def stream(
            servicer: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            try:
                with admit(servicer, context) as call:
                    async with aclosing(method(servicer, request, context)) as messages:
                        async for message in messages:
                            with call.outside() if call is not None else nullcontext():
                                yield message
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # whatever it is, only its status may leave
                await errors.abort(context, error)

        return cast("_Method", stream)

    @functools.wraps(method)
    async def unary(servicer: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            with admit(servicer, context):
                return await method(servicer, request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # whatever it is, only its status may leave
            return await errors.abort(context, error)

    return cast("_Method", unary)
