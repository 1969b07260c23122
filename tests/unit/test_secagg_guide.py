"""The attacks that docs/secure-aggregation.md lists are tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "secure-aggregation.md").read_text()


def test_every_attack_in_the_guide_is_a_test() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def test_(\w+)", sources, re.MULTILINE))
    table = GUIDE.split("## Attacks\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"`(\w+)`", tests) for _attack, outcome, tests in rows if outcome.strip()]
    assert len(named) > 30
    assert all(named)
    assert {name for row in named for name in row} <= there
