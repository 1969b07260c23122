"""A witness of a log: it remembers the last head, lets only a continuation of it pass, persists, and then cosigns.

What it never does: cosign a head before it is durable, a smaller one (rewind), another one of the same size (fork), or
one that it cannot connect to its own (gap). Must not know: where the head is kept, how messages travel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from queries.errors import LogError
from trust.tlog import notes
from trust.tlog.checkpoint import Checkpoint, open_checkpoint
from trust.tlog.cosignature import Cosigner
from trust.tlog.evidence import Contradiction, Shown
from trust.tlog.merkle import EMPTY_ROOT, verify_consistency

_TELL = "do not go on: keep the head and tell the auditor"


class Witness:
    """The last head of one log, as one participant has seen it. Not safe to use from two threads at once.

    `name` and `key` are the participant's id and identity key, `origin` and `log_key` (raw Ed25519) are the log's; size
    0 means that no head has been seen, and the first one is then taken as it is. `note` is that head as it was signed.
    """

    def __init__(
        self,
        *,
        name: str,
        key: Ed25519PrivateKey,
        origin: str,
        log_key: bytes,
        size: int = 0,
        root: bytes = b"",
        note: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cosigner = Cosigner(name, key)
        self._verifier = notes.Verifier(origin, log_key)
        self._clock = clock
        self._name = name
        self.origin = origin
        self.log_key = log_key
        self.size = size
        self.root = root if size else EMPTY_ROOT
        self.note = note
        """The last head as the log signed it; empty where it was not kept."""

    def advance(
        self,
        note: bytes,
        old_size: int,
        proof: Sequence[bytes],
        *,
        persist: Callable[[int, bytes], None],
    ) -> str:
        """Check a signed head against the last one, make it durable with `persist(size, root)`, cosign it.

        `proof` is the consistency proof from `old_size`, which has to be this witness's size. Return the cosignature
        line. Raise LogError, with nothing changed, on a fork, a rewind, a gap or a bad signature; whatever `persist`
        raises leaves the witness where it was.
        """
        head = open_checkpoint(note, self.origin, self._verifier)
        self._check(head, note, old_size, proof)
        if head.size > self.size:
            persist(head.size, head.root)
            self.size, self.root = head.size, head.root
        self.note = note
        return str(self._cosigner.sign(head.text(), int(self._clock())))

    @property
    def shown(self) -> Shown:
        """The last head, as evidence."""
        return Shown(self._name, self.size, self.root, self.note)

    def _check(self, head: Checkpoint, note: bytes, old_size: int, proof: Sequence[bytes]) -> None:
        now = Shown(self._name, head.size, head.root, note)
        if head.size < self.size:
            raise Contradiction(
                f"the log was rewound from {self.size} to {head.size} entries", hint=_TELL, heads=(now, self.shown)
            )
        if head.size == self.size:
            if head.root != self.root:
                raise Contradiction(
                    f"the log was forked: there are two heads of size {self.size}", hint=_TELL, heads=(self.shown, now)
                )
            return
        if self.size == 0:
            return
        if old_size != self.size:
            raise LogError(
                f"the proof starts at size {old_size}, the last head seen here has {self.size}",
                hint="connect again, and say the size that was seen",
            )
        try:
            verify_consistency(self.size, self.root, head.size, head.root, proof)
        except LogError as error:
            raise Contradiction(error.message, hint=_TELL, heads=(self.shown, now), proof=proof) from error
