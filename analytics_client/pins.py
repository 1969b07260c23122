"""What an analyst has seen of the consortium and will not be led back behind: the membership and the log's head.

A coordinator that shows an older membership brings back people who were revoked; one that shows a shorter log, or
another log of the same size, has rewritten it. The pins are one small file in the participant's profile folder,
replaced atomically under a lock. Must not know: the network, how checkpoints are signed (their verifier comes first).
"""

from __future__ import annotations

import base64
import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from queries.errors import ConfigError
from trust.identity import files, membership
from trust.tlog.evidence import Contradiction, Shown

FILE = "seen.json"


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest of each that was verified: the membership's envelope (base64), the log's size and root (hex)."""

    membership: str = ""
    log_size: int = 0
    log_root: str = ""
    log_note: str = ""
    """The signed head itself (base64), to show it to the institutions."""


class Pins:
    """The pins of one profile folder; safe to use from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._seen = self._load()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the pins against every other thread and process, as they are on disk now."""
        with self._lock, self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
            self._seen = self._load()
            yield

    @property
    def log_size(self) -> int:
        """Entries of the longest log that was verified so far."""
        return self._seen.log_size

    @property
    def log_note(self) -> bytes:
        """The signed head of the longest log that was verified so far; empty before the first."""
        return base64.b64decode(self._seen.log_note)

    def accept_membership(
        self, envelope: bytes, governance_key: bytes, *, consortium: str
    ) -> membership.MembershipDocument:
        """Return the document if governance signed it and it continues the one seen before; remember it.

        Raise SignatureError or IdentityError as `membership.verify` does.
        """
        with self._exclusive():
            previous = None
            if self._seen.membership:
                known = base64.b64decode(self._seen.membership)
                previous = membership.verify(known, governance_key, consortium=consortium)
                if known == envelope:
                    return previous
            document = membership.verify(envelope, governance_key, previous, consortium=consortium)
            self._replace(replace(self._seen, membership=base64.b64encode(envelope).decode()))
            return document

    def accept_log_head(self, size: int, root: bytes, *, after: int, note: bytes = b"") -> None:
        """Take note of a verified checkpoint that covers an entry made after the log had `after` entries.

        `note` is the signed checkpoint itself. Raise Contradiction where the log is not longer than that, or where
        another log of the same size was seen. A head smaller than the newest is none: answers of concurrent queries
        arrive in any order, each under the head of its time.
        """
        with self._exclusive():
            seen, now = self._shown(), Shown("the analyst", size, root, note)
            if size <= after:
                raise Contradiction(
                    f"the coordinator shows a log of {size} entries, but it had {after} before this was asked",
                    hint="a log never gets shorter: tell the auditor",
                    heads=(now, seen),
                )
            if size == seen.size and root != seen.root:
                raise Contradiction(
                    f"the coordinator signed two different logs of {size} entries",
                    hint="keep both and tell the auditor",
                    heads=(seen, now),
                )
            if size > self._seen.log_size:
                kept = base64.b64encode(note).decode()
                self._replace(replace(self._seen, log_size=size, log_root=root.hex(), log_note=kept))

    def _shown(self) -> Shown:
        return Shown("the analyst", self._seen.log_size, bytes.fromhex(self._seen.log_root), self.log_note)

    def _replace(self, seen: Seen) -> None:
        files.replace(self._path, json.dumps(asdict(seen)).encode(), secret=False)
        self._seen = seen

    def _load(self) -> Seen:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Seen()
        try:
            seen = Seen(**json.loads(text))
            base64.b64decode(seen.membership, validate=True)
            base64.b64decode(seen.log_note, validate=True)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{self._path} is damaged", hint="remove it only if you know why: it guards against a rewound log"
            ) from error
        return seen
