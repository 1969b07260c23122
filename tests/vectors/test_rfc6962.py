"""The published RFC 6962 proof cases, positive and negative."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from queries.errors import LogError
from trust.tlog.merkle import verify_consistency, verify_inclusion

ROOT = Path(__file__).parents[2].parent / "shared" / "vectors" / "rfc6962"
INCLUSION = sorted(ROOT.glob("inclusion/**/*.json"))
CONSISTENCY = sorted(ROOT.glob("consistency/**/*.json"))

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"the RFC 6962 vectors are not at {ROOT}")


def decode(text: str | None) -> bytes:
    return base64.b64decode(text) if text else b""


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_every_case_is_there() -> None:
    assert len(INCLUSION) + len(CONSISTENCY) == 196


@pytest.mark.parametrize("path", INCLUSION, ids=name)
def test_inclusion(path: Path) -> None:
    case = json.loads(path.read_text())
    proof = [decode(text) for text in case["proof"] or []]
    arguments = decode(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, decode(case["root"])
    if case["wantErr"]:
        with pytest.raises(LogError):
            verify_inclusion(*arguments)
    else:
        verify_inclusion(*arguments)


@pytest.mark.parametrize("path", CONSISTENCY, ids=name)
def test_consistency(path: Path) -> None:
    case = json.loads(path.read_text())
    proof = [decode(text) for text in case["proof"] or []]
    arguments = case["size1"], decode(case["root1"]), case["size2"], decode(case["root2"]), proof
    if case["wantErr"]:
        with pytest.raises(LogError):
            verify_consistency(*arguments)
    else:
        verify_consistency(*arguments)
