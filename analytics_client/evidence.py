"""Contradictions of the log, kept where they were found: a file that anybody can check, in the participant's folder.

Must not know: what a contradiction is; see `trust.tlog.evidence`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trust.identity import files
from trust.tlog.evidence import Contradiction, Evidence

FOLDER = "evidence"


@contextmanager
def kept(folder: Path, me: str, memberships: Sequence[bytes], governance_key: bytes) -> Iterator[None]:
    """Run something; where it finds a Contradiction, write it down, and raise it on with the file in its hint."""
    try:
        yield
    except Contradiction as found:
        path = keep(found, folder, me, memberships, governance_key)
        found.hint = f"{found.hint}; check it, and give it to the auditor: cohortium audit evidence {path}"
        raise


def keep(found: Contradiction, folder: Path, me: str, memberships: Sequence[bytes], governance_key: bytes) -> Path:
    """Write a contradiction into `folder`/evidence, once, and return the file."""
    evidence = Evidence(
        found=found.message,
        found_by=me,
        at=int(time.time()),
        heads=found.heads,
        proof=found.proof,
        memberships=tuple(memberships),
        governance_key=governance_key,
    )
    path = folder / FOLDER / f"{evidence.name}.json"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        files.replace(path, evidence.to_bytes(), secret=False)
    return path
