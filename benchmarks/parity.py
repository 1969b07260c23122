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
from harness.parity import TOLERANCE, cases  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "parity.json"


def main() -> None:
    if not DATA.exists():
        sys.exit("the reference data sets are not beside this checkout")
    found = list(cases())
    records = []
    for case in found:
        record = {
            "name": case.name,
            "reference": case.reference,
            "value": case.value,
            "relative_error": case.relative_error,
        }
        records.append(record | ({"leaf": case.leaf} if case.leaf else {}))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"cases": records}, indent=1) + "\n")
    worst = max((case for case in found if not case.leaf), key=lambda case: case.relative_error)
    print(f"{len(found)} numbers; largest relative error {worst.relative_error:.2g} ({worst.name})")
    quantiles = [abs(case.value - case.reference) / case.leaf for case in found if case.leaf]
    print(f"{len(quantiles)} of them quantiles, at most {max(quantiles):.2f} leaves away")
    beyond = [case.name for case in found if not case.agrees]
    if beyond:
        sys.exit(f"beyond {TOLERANCE:g}: {', '.join(beyond)}")


if __name__ == "__main__":
    main()
