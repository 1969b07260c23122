"""What a participant has seen of its consortium and will not be led back behind: membership epoch and log head.

A coordinator that shows an older membership brings back people who were revoked; one that shows a shorter log, or
another log of the same size, has rewritten it. The pins are one small file in the participant's profile folder,
replaced atomically. Must not know: how membership and checkpoints are signed (their verifiers come first).
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from queries.errors import ConfigError, IdentityError, LogError

FILE = "seen.json"


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest of each that was verified. Hashes are lower-case hex; sizes and epochs count from 1, 0 is none."""

    epoch: int = 0
    membership_hash: str = ""
    log_size: int = 0
    log_root: str = ""


class Pins:
    """The pins of one profile folder; safe to use from several threads of one process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._seen = self._load()

    @property
    def seen(self) -> Seen:
        """The newest that was verified so far."""
        return self._seen

    def membership(self, epoch: int, membership_hash: bytes) -> None:
        """Take note of a verified membership; raise IdentityError where it goes back or replaces the same epoch."""
        with self._lock:
            seen = self._seen
            if epoch < seen.epoch:
                raise IdentityError(
                    f"the coordinator shows membership epoch {epoch}, but epoch {seen.epoch} was in force before",
                    hint="a membership never goes back: tell the auditor",
                )
            if epoch == seen.epoch and membership_hash.hex() != seen.membership_hash:
                raise IdentityError(
                    f"the coordinator shows another membership of epoch {epoch} than before",
                    hint="governance signs one per epoch: tell the auditor",
                )
            self._replace(replace(seen, epoch=epoch, membership_hash=membership_hash.hex()))

    def log_head(self, size: int, root: bytes, *, after: int) -> None:
        """Take note of a verified checkpoint that covers an entry made after the log had `after` entries.

        Raise LogError where the log is not longer than that, or where another log of the same size was seen. A head
        smaller than the newest is no contradiction: answers of concurrent queries arrive in any order, each under the
        head of its time.
        """
        with self._lock:
            seen = self._seen
            if size <= after:
                raise LogError(
                    f"the coordinator shows a log of {size} entries, but it had {after} before this was asked",
                    hint="a log never gets shorter: tell the auditor",
                )
            if size == seen.log_size and root.hex() != seen.log_root:
                raise LogError(
                    f"the coordinator signed two different logs of {size} entries",
                    hint="keep both and tell the auditor: cohortium audit verify",
                )
            if size > seen.log_size:
                self._replace(replace(seen, log_size=size, log_root=root.hex()))

    def _replace(self, seen: Seen) -> None:
        if seen == self._seen:
            return
        temporary = self._path.with_name(f"{FILE}.{os.getpid()}.{threading.get_ident()}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(seen), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._seen = seen

    def _load(self) -> Seen:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Seen()
        try:
            return Seen(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{self._path} is damaged", hint="remove it only if you know why: it guards against a rewound log"
            ) from error
