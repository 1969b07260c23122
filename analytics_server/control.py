"""A nudge from another process on this machine: "what is in the store has changed".

The coordinator listens on a socket in its folder; commands that published or revoked knock there, and wait until it has
looked. Nothing else is ever said, so nothing here needs trust beyond the folder's permissions.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from queries.errors import ConfigError, ServiceError

SOCKET = "control.sock"
TIMEOUT_S = 5.0
_LONGEST_PATH = 100
"""Bytes of a socket's path that every POSIX system takes."""
_KNOCK, _DONE = b"changed\n", b"seen\n"


def poke(folder: Path) -> bool:
    """Have the coordinator of this folder look at its store; False where none is running.

    Returns once it has looked. Raises ServiceError where it runs but does not answer within 5 seconds.
    """
    with _socket_path(folder) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(TIMEOUT_S)
        try:
            knock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        try:
            knock.sendall(_KNOCK)
            answer = knock.recv(len(_DONE))
        except OSError:
            answer = b""
    if answer != _DONE:
        raise ServiceError(
            "what was changed is stored, but the running coordinator did not take it up",
            hint="look at its log, and restart it",
        )
    return True


async def listen(folder: Path, on_change: Callable[[], Awaitable[None]]) -> None:
    """Call `on_change` for every knock, one at a time, until cancelled. Raises ConfigError where another listens."""
    turn = asyncio.Lock()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                knock = await reader.readline()
            if knock == _KNOCK:
                async with turn:
                    await on_change()
                writer.write(_DONE)
                await writer.drain()
        except (TimeoutError, ConnectionError):
            return  # whoever knocked went away or said nothing: there is nobody to answer
        finally:
            writer.close()

    with _socket_path(folder) as path:
        _check_alone(path)
        previous = os.umask(0o077)
        try:
            server = await asyncio.start_unix_server(answer, path)
        finally:
            os.umask(previous)
        try:
            async with server:
                await server.serve_forever()
        finally:
            Path(path).unlink(missing_ok=True)


def _check_alone(path: str) -> None:
    """Raise ConfigError where a coordinator is alive. The socket of a killed one is asyncio's to replace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
    raise ConfigError("a coordinator is already running in this folder", hint="stop it first")


@contextmanager
def _socket_path(folder: Path) -> Iterator[str]:
    """Give a path of the socket that is short enough, through the folder's descriptor where the plain one is not."""
    plain = str(folder / SOCKET)
    if len(os.fsencode(plain)) <= _LONGEST_PATH:
        yield plain
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = f"/proc/self/fd/{handle}/{SOCKET}"
        if not os.path.isdir(os.path.dirname(short)):
            raise ConfigError(f"{folder} has too long a path for a socket", hint="use a shorter folder name")
        yield short
    finally:
        os.close(handle)
