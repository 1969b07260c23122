"""C2SP checkpoints (c2sp.org/tlog-checkpoint): the head of a log as the text of a signed note.

Must not know: who signs, how a tree is stored.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from queries.errors import LogError
from trust.tlog import notes
from trust.tlog.merkle import EMPTY_ROOT, HASH_SIZE, MAX_SIZE

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A head: the log's name, the number of entries, the root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the note text, three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse(text: str) -> Checkpoint:
    """Read a note text. Raise LogError on anything but three proper lines: extension lines could not be audited."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise LogError("the note is no checkpoint of a log")
    origin, size, encoded, _ = lines
    try:
        root = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LogError("the checkpoint's root is not base64") from error
    if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
        raise LogError("the checkpoint's size is not a number of entries")
    if len(root) != HASH_SIZE or base64.b64encode(root).decode() != encoded:
        raise LogError("the checkpoint's root is not a hash")
    if size == "0" and root != EMPTY_ROOT:
        raise LogError("the checkpoint of an empty log has another root than nothing has")
    return Checkpoint(origin, int(size), root)


def open_checkpoint(note: bytes, origin: str, *verifiers: notes.NoteVerifier) -> Checkpoint:
    """Return the head that the log of this origin signed. Raise LogError on another log's, or a bad signature."""
    found = parse(notes.open_note(note, *verifiers))
    if found.origin != origin:
        raise LogError(f"the checkpoint is of log {found.origin!r}, not of {origin!r}")
    return found
