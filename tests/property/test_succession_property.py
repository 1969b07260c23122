"""Whatever order keys change in, an honest history is followed by everyone, and no other one is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from queries.errors import IdentityError
from trust.identity import keys
from trust.identity.succession import KeyChange, check_changes, check_continues, retired_by_rotation, sign_rotation

NORTH = "north"
PEOPLE = ("ada", "bob", "eve")
POOL = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 40)]


@dataclass
class Story:
    """Epochs of a consortium: per epoch the keys in force and all changes so far."""

    epochs: list[tuple[dict[str, bytes], tuple[KeyChange, ...]]] = field(default_factory=list)

    def check(self, seen: int, now: int) -> None:
        """Go from the epoch that was seen to a later one, as a participant does."""
        known, before = self.epochs[seen]
        current, after = self.epochs[now]
        check_changes(NORTH, now + 1, after, current)
        check_continues(before, known, after, current)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    pool = iter(POOL)
    held = {name: next(pool) for name in PEOPLE}
    members, changes, story = set(PEOPLE), [], Story()
    story.epochs.append(({n: keys.public_bytes(k) for n, k in held.items()}, ()))
    for epoch in range(2, draw(st.integers(2, 6)) + 1):
        for name in draw(st.lists(st.sampled_from(PEOPLE), unique=True)):
            what = draw(st.sampled_from(("rotate", "recover", "leave", "return")))
            if what in ("rotate", "recover"):
                old, new = held[name], next(pool)
                pair = keys.public_bytes(old), keys.public_bytes(new)
                signed = sign_rotation(old, NORTH, name, pair[1]) if what == "rotate" else b""
                changes.append(KeyChange(name, epoch, *pair, signed, "" if signed else "lost"))
                held[name] = new
            elif what == "leave":
                members.discard(name)
            else:
                members.add(name)
        story.epochs.append(({n: keys.public_bytes(held[n]) for n in sorted(members)}, tuple(changes)))
    return story


@settings(max_examples=40, deadline=None)
@given(stories(), st.data())
def test_honest_history_is_followed_from_any_epoch_to_any_later_one(story: Story, data: st.DataObject) -> None:
    now = data.draw(st.integers(0, len(story.epochs) - 1))
    seen = data.draw(st.integers(0, now))
    story.check(seen, now)


@settings(max_examples=40, deadline=None)
@given(stories(), st.data())
def test_history_that_was_tampered_with_is_refused(story: Story, data: st.DataObject) -> None:
    current, changes = story.epochs[-1]
    if not changes:
        return
    at = data.draw(st.integers(0, len(changes) - 1))
    victim = changes[at]
    stranger = keys.public_bytes(POOL[-1])
    others = [name for name in PEOPLE if name != victim.id]
    tampered = {
        "forgotten": (*changes[:at], *changes[at + 1 :]),
        "new key": (*changes[:at], replace(victim, new_key=stranger), *changes[at + 1 :]),
        "old key": (*changes[:at], replace(victim, old_key=stranger), *changes[at + 1 :]),
        "another's": (*changes[:at], replace(victim, id=data.draw(st.sampled_from(others))), *changes[at + 1 :]),
        "twice": (*changes, victim),
    }[data.draw(st.sampled_from(("forgotten", "new key", "old key", "another's", "twice")))]
    forged = Story([*story.epochs, (current, tampered)])
    with pytest.raises(IdentityError):
        forged.check(len(story.epochs) - 1, len(story.epochs))


@given(stories())
def test_keys_that_were_lost_sign_nothing_of_the_past(story: Story) -> None:
    _, changes = story.epochs[-1]
    for name in PEOPLE:
        kept = retired_by_rotation(changes, name)
        assert set(kept) == {c.old_key for c in changes if c.id == name and c.rotated}
        assert not set(kept) & {c.old_key for c in changes if not c.rotated}
