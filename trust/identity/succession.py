"""One id, one key after another: how a participant comes to sign with another identity key and stays the same.

A key is rotated by its own holder, whose signature goes into the membership, or given anew by governance to someone who
lost it, with a reason. Every membership lists all changes there have been, so a participant who slept through epochs
can follow each id from the key it knew to the one it is shown, and no key that was given up ever comes back. Budgets,
rights and history belong to the id and go with it. Must not know: who may ask for a change, documents around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from queries.errors import IdentityError, SignatureError
from trust.identity import keys
from trust.identity.names import check_participant
from trust.transcript import frame

MAX_CHANGES = 10_000
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class KeyChange:
    """`id` signs with `new_key` instead of `old_key` (raw Ed25519) from `epoch` on.

    A rotation has the old key's signature, a recovery has a `reason` in its place.
    """

    id: str
    epoch: int
    old_key: bytes
    new_key: bytes
    old_signature: bytes = field(default=b"", repr=False)
    reason: str = ""

    @property
    def rotated(self) -> bool:
        """Whether the holder of the old key changed it; else governance gave a new one."""
        return bool(self.old_signature)


def check_reason(reason: str) -> str:
    """Return why a key is replaced by governance, or raise IdentityError: everyone reads it, for ever."""
    if not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        raise IdentityError(
            "a recovery needs a reason", hint=f"one printable line of at most {MAX_REASON} characters: no personal data"
        )
    return reason


def sign_rotation(old: Ed25519PrivateKey, consortium: str, participant: str, new_key: bytes) -> bytes:
    """Return the signature by which the holder of the key in force hands over to `new_key`."""
    return old.sign(_rotation(consortium, participant, keys.public_bytes(old), new_key))


def verify_rotation(consortium: str, participant: str, old_key: bytes, new_key: bytes, signature: bytes) -> None:
    """Raise SignatureError unless the old key's holder handed over to the new one."""
    keys.verify(
        old_key,
        signature,
        _rotation(consortium, participant, old_key, new_key),
        what=f"the key rotation of {participant!r}",
    )


def check_changes(consortium: str, epoch: int, changes: Sequence[KeyChange], current: Mapping[str, bytes]) -> None:
    """Raise IdentityError unless the changes lead, id by id and without any key twice, to the `current` keys.

    `current` holds the raw identity key of every participant of the document of `epoch`; an id that has left it may
    still have changes.
    """
    if len(changes) > MAX_CHANGES:
        raise IdentityError(f"a membership of more than {MAX_CHANGES} key changes is not supported")
    latest: dict[str, bytes] = {}
    owner: dict[bytes, str] = {}
    before = 1
    for change in changes:
        _check_form(consortium, change)
        if not before <= change.epoch <= epoch:
            raise IdentityError("the membership's key changes are out of order")
        before = change.epoch
        known = latest.get(change.id)
        if known is None:
            _claim(owner, change.old_key, change.id)
        elif known != change.old_key:
            raise IdentityError(f"the key changes of {change.id!r} do not follow each other")
        _claim(owner, change.new_key, change.id)
        latest[change.id] = change.new_key
    for participant, key in current.items():
        expected = latest.get(participant)
        if expected is not None and expected != key:
            raise IdentityError(f"{participant!r} is listed with a key that was given up, or never announced")
        if owner.get(key, participant) != participant:
            raise IdentityError(f"{participant!r} is listed with a key that was {owner[key]!r}'s")


def check_continues(
    before: Sequence[KeyChange], known: Mapping[str, bytes], after: Sequence[KeyChange], current: Mapping[str, bytes]
) -> None:
    """Raise IdentityError where a later membership changed a key without saying so, or forgot a change.

    `before` and `known` are the changes and keys of the membership seen last, `after` and `current` of the newer one.
    """
    if tuple(after[: len(before)]) != tuple(before):
        raise IdentityError(
            "the membership forgets or alters key changes of an earlier epoch",
            hint="governance signed two histories: tell your operator",
        )
    given_up = {(change.id, change.old_key) for change in after[len(before) :]}
    for participant, key in known.items():
        if current.get(participant, key) != key and (participant, key) not in given_up:
            raise IdentityError(
                f"{participant!r} has another key than before, and no key change says why",
                hint="ask governance; do not go on",
            )


def retired_by_rotation(changes: Iterable[KeyChange], participant: str) -> list[bytes]:
    """Return the keys that the participant itself gave up, newest first; not those that were lost."""
    return [change.old_key for change in changes if change.id == participant and change.rotated][::-1]


def _check_form(consortium: str, change: KeyChange) -> None:
    check_participant(change.id)
    if len(change.old_key) != 32 or len(change.new_key) != 32 or change.old_key == change.new_key:
        raise SignatureError(f"a key change of {change.id!r} names no two Ed25519 keys")
    if change.rotated:
        if change.reason:
            raise IdentityError(f"a key change of {change.id!r} is both a rotation and a recovery")
        verify_rotation(consortium, change.id, change.old_key, change.new_key, change.old_signature)
    else:
        check_reason(change.reason)


def _claim(owner: dict[bytes, str], key: bytes, participant: str) -> None:
    if key in owner:
        raise IdentityError(f"a key of {owner[key]!r} that was replaced comes back")
    owner[key] = participant


def _rotation(consortium: str, participant: str, old_key: bytes, new_key: bytes) -> bytes:
    return frame("key-rotation", consortium.encode(), participant.encode(), old_key, new_key)
