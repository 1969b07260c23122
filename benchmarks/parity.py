"""Every statistic without noise beside pandas, scipy and statsmodels on the pooled files of real studies.

Writes benchmarks/results/parity.json: for each number its name, the library's value, ours, and the relative error,
which must be at most 1e-8. Runs whole consortia; the noise is taken out inside the test harness only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from harness.data import DATA  # noqa: E402 -- found through the line above
from harness.parity import cases  # noqa: E402

TOLERANCE = 1e-8
RESULTS = Path(__file__).parent / "results" / "parity.json"


def main() -> None:
    if not DATA.exists():
        sys.exit("the reference data sets are not beside this checkout")
    found = list(cases())
    records = [
        {"name": c.name, "reference": c.reference, "value": c.value, "relative_error": c.relative_error} for c in found
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"cases": records}, indent=1) + "\n")
    worst = max(found, key=lambda case: case.relative_error)
    print(f"{len(found)} numbers; largest relative error {worst.relative_error:.2g} ({worst.name})")
    beyond = [case.name for case in found if not case.relative_error <= TOLERANCE]
    if beyond:
        sys.exit(f"beyond {TOLERANCE:g}: {', '.join(beyond)}")


if __name__ == "__main__":
    main()
