"""The audit of live processes: agents, coordinator and analyst as a user starts them, 2,000 releases."""

from __future__ import annotations

from pathlib import Path

import pytest
from adversary.audit import gdp_audit
from adversary.live_audit import live_releases


@pytest.mark.soak
def test_what_live_processes_release_proves_no_more_than_its_cost(tmp_path: Path) -> None:
    absent, present, rho = live_releases(tmp_path, 2000)
    verdict = gdp_audit(absent, present, rho)
    assert not verdict.violated
    assert verdict.estimate > 0.5 * verdict.promised  # the person is there, and the audit sees her
