"""Durable files for keys and documents: written once or replaced, never half-written."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from queries.errors import ConfigError


def write_new(path: Path, data: bytes, *, secret: bool) -> None:
    """Create the file with exactly these bytes, durable on return; mode 0600 if `secret`, else 0644.

    Raises ConfigError where a file of that name exists: a key is never overwritten.
    """
    temporary = _write_beside(path, data, secret=secret)
    try:
        os.link(temporary, path)  # unlike rename, link fails where the name is taken
    except FileExistsError:
        raise ConfigError(f"{path} exists already", hint="move it away first, or choose another folder") from None
    finally:
        temporary.unlink()
    sync_directory(path.parent)


def replace(path: Path, data: bytes, *, secret: bool) -> None:
    """Put these bytes in the place of whatever the file held; a crash leaves the old content or the new."""
    temporary = _write_beside(path, data, secret=secret)
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> bytes:
    """Return a file's bytes. Raises ConfigError where it is missing or unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing", hint="check the folder's name") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="check its owner and permissions") from None


def read_secret(path: Path) -> bytes:
    """Return a secret file's bytes. Raises ConfigError where others than its owner may read or write it."""
    data = read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"{path} is open to other users (mode {mode:04o})", hint=f"if nobody has copied it: chmod 600 {path}"
        )
    return data


def _write_beside(path: Path, data: bytes, *, secret: bool) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600 if secret else 0o644)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", hint="check the folder's permissions"
        ) from None
    with os.fdopen(handle, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return temporary
