"""Attack a live consortium in every way that docs/attacks.md lists, audit what it releases, and write the report.

The consortium is real: gRPC over mTLS on loopback, agents with ledgers, DuckDB and fresh noise, a coordinator with its
log. Adversaries and games are in tests/adversary. Writes

    benchmarks/results/attacks.json   {"attacks": [{"name", "advantage", "bound", "rows_recovered"}], "audits": [...]}
    docs/attacks.md                   the tables between the two marks

and ends with exit status 1 where anything was recovered, or more gained than promised.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from adversary import suite
from adversary.audit import (
    Setting,
    Share,
    averaged,
    clamping,
    event_audit,
    forgetful,
    gdp_audit,
    one_key,
    releases,
    share,
)
from adversary.game import Outcome
from adversary.live_audit import live_releases
from adversary.suite import Field
from adversary.town import town

from queries.accounting import NANO, Budget, Curve

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "attacks.json"
PAGE = ROOT / "docs" / "attacks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
EPSILON = 1.0
"""Budget of every dataset where the budget is what stops an attack."""
DELTA = 1e-5


@dataclass(frozen=True)
class Audited:
    """One audit of released values; `caught` says whether it proves more than was promised."""

    name: str
    audit: str
    releases: int
    estimate: float
    low: float
    promised: float
    caught: bool
    planted: bool


def attack(trials: int, repeats: int) -> list[Outcome]:
    """Run every attack and return what each achieved."""
    outcomes = []
    with tempfile.TemporaryDirectory() as folder, town(Path(folder)) as running, pytest.MonkeyPatch.context() as patch:
        for each in suite.GENEROUS:
            outcomes.append(each(Field(running, patch, trials)))
            print(_line(outcomes[-1]), flush=True)
    budget = Budget(EPSILON, 1e-6).left(Curve.zero()) / NANO
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        town(Path(folder), epsilon=EPSILON, copies=repeats) as running,
    ):
        field = Field(running, patch, trials)
        outcomes.append(suite.repeated(field, budget_rho=budget, each=budget / 50, times=1000, worlds=repeats))
        print(_line(outcomes[-1]), flush=True)
        outcomes.append(suite.racing(field, budget_rho=budget, each=budget / 10, threads=16, world="sickly"))
        print(_line(outcomes[-1]), flush=True)
    return outcomes


def audit(count: int, live: int) -> list[Audited]:
    """Audit the mechanism as it is, by both samplers and live, and with every bug planted."""
    fewest = Setting(0.5)
    everybody, one_more = Setting(0.5, survivors=5), Setting(0.5, too_many=1)
    pure = Setting(0.5, pure=True)
    cases: list[tuple[str, Setting, Callable[[], Share], int, bool]] = [
        ("as shipped", fewest, lambda: share, 1, False),
        ("as shipped, everybody there", everybody, lambda: share, 1, False),
        ("planted: the noise of one of three is missing", fewest, forgetful, 1, True),
        ("planted: a layer of noise taken off too many", one_more, lambda: share, 1, True),
        ("planted: doubled sensitivity", fewest, lambda: share, 2, True),
        ("planted: the mean of two answers", fewest, averaged, 1, True),
        ("planted: one noise key at all institutions", fewest, one_key, 1, True),
        ("planted: clamped before summing", fewest, clamping, 1, True),
        ("without a delta", pure, lambda: share, 1, False),
        ("without a delta, everybody there", replace(pure, survivors=5), lambda: share, 1, False),
        ("without a delta, planted: the noise of one of three is missing", pure, forgetful, 1, True),
        (
            "without a delta, planted: a layer of noise taken off too many",
            replace(pure, too_many=1),
            lambda: share,
            1,
            True,
        ),
    ]
    found = []
    for name, setting, make, rows, planted in cases:
        absent, present = (releases(setting, count, person=p, draw=make(), rows=rows) for p in (False, True))
        found += _judge(name, absent, present, setting.rho, planted=planted, pure=setting.pure)
    short = [np.concatenate([releases(fewest, 50_000, person=p) for _ in range(4)]) for p in (False, True)]
    found += _judge("as shipped, OpenDP's sampler", short[0], short[1], fewest.rho, planted=False)
    if live:
        with tempfile.TemporaryDirectory() as folder:
            absent, present, rho = live_releases(Path(folder), live)
        found += _judge("live processes", absent, present, rho, planted=False)
    return found


def _judge(
    name: str, absent: np.ndarray, present: np.ndarray, rho: float, *, planted: bool, pure: bool = False
) -> list[Audited]:
    """What audits say. Without a delta it is the event audit that sees every fault, and the other is for Gaussians."""
    verdicts = {"event": event_audit(absent, present, rho, 0.0 if pure else DELTA)}
    if not pure:
        verdicts = {"GDP": gdp_audit(absent, present, rho)} | verdicts
    found = [
        Audited(name, kind, len(absent), v.estimate, v.low, v.promised, v.violated, planted)
        for kind, v in verdicts.items()
    ]
    for each in found:
        print(f"{each.audit:5} {each.name}: at least {each.low:.3f} of {each.promised:.3f}, caught: {each.caught}")
    return found


def _line(outcome: Outcome) -> str:
    return f"{outcome.name}: advantage {outcome.advantage:.3f} of {outcome.bound:.3f}, {outcome.rows_recovered} rows"


def tables(outcomes: list[Outcome], audits: list[Audited]) -> str:
    """Return both tables in Markdown."""
    lines = ["| attack | what was tried | trials | advantage | bound | rows recovered |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {o.name} | {o.tried} | {o.trials} | {o.advantage:.3f} | {o.bound:.3f} | {o.rows_recovered} |"
        for o in outcomes
    ]
    lines += ["", "| audited | audit | releases | proves at least | promised | caught |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {a.name} | {a.audit} | 2 x {a.releases:,} | {a.low:.3f} | {a.promised:.3f} | {('no', 'yes')[a.caught]} |"
        for a in audits
    ]
    return "\n".join(lines)


def main() -> int:
    """Run, print, write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5, help="worlds with a budget of their own")
    parser.add_argument("--releases", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=2_000, help="releases by live processes, half in each world")
    options = parser.parse_args()
    outcomes = attack(options.trials, options.repeats)
    audits = audit(options.releases, options.live)
    RESULTS.write_text(
        json.dumps(
            {
                "attacks": [outcome.record() for outcome in outcomes],
                "audits": [asdict(each) for each in audits],
                "python": platform.python_version(),
            },
            indent=1,
        )
        + "\n"
    )
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables(outcomes, audits)}\n{END}{rest.split(END)[1]}")
    sharp = [each for each in audits if each.audit == "GDP" or each.name.startswith("without a delta")]
    honest = all(outcome.holds for outcome in outcomes) and not any(a.caught for a in audits if not a.planted)
    return 0 if honest and all(a.caught for a in sharp if a.planted) else 1


if __name__ == "__main__":
    sys.exit(main())
