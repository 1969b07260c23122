"""Persons who must not be counted: a file of salted hashes, applied inside the database before anything is summed.

The file's first line holds a random salt, every other the SHA-256 of salt and person id, both as text. So the list
names nobody to who reads it alone; who also has the data can tell, as they could from any list. Must not know: SQL.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from queries.errors import ConfigError
from trust.identity import files

_HEX = re.compile(r"[0-9a-f]{64}")
_WHITE = " \t\r\n\f\v\u00a0\ufeff"
_SALT = "salt "


@dataclass(frozen=True, slots=True)
class OptOut:
    """Salt and hashes, in hex."""

    salt: str
    hashes: frozenset[str]

    def hash_of(self, person: str) -> str:
        """Return what stands in the list for a person. White space around an id does not count, as in the data."""
        return hashlib.sha256((self.salt + person.strip(_WHITE)).encode()).hexdigest()

    def dump(self) -> bytes:
        """Return the file's content."""
        return "".join(f"{line}\n" for line in (_SALT + self.salt, *sorted(self.hashes))).encode()


def read(path: Path) -> OptOut:
    """Read a list. Raise ConfigError where it is missing or not one: then nothing may be counted at all."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the opt-out list {path.name} cannot be read", hint="make one: cohortium-agent opt-out DIR DATASET"
        ) from error
    salt = lines[0].removeprefix(_SALT) if lines else ""
    hashes = [line for line in lines[1:] if line]
    if not lines or not lines[0].startswith(_SALT) or not all(_HEX.fullmatch(line) for line in (salt, *hashes)):
        raise ConfigError(
            f"{path.name} is no opt-out list: a line of it is not a hash",
            hint="change it only by: cohortium-agent opt-out DIR DATASET",
        )
    return OptOut(salt, frozenset(hashes))


def change(path: Path, persons: Iterable[str], *, withdraw: bool = False) -> int:
    """Add persons to the list, which is made where there is none, or take them off; return how many stand in it."""
    before = read(path) if path.exists() else OptOut(secrets.token_hex(32), frozenset())
    named = {before.hash_of(person) for person in persons if person.strip(_WHITE)}
    after = OptOut(before.salt, before.hashes - named if withdraw else before.hashes | named)
    files.replace(path, after.dump(), secret=True)
    return len(after.hashes)
