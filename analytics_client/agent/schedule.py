"""When an answer may leave: at fixed times after its announcement, so that its delay tells little about the data.

The times double from 50 ms to 3.2 s and are then 3.2 s apart. An answer waits for the first that it can meet; a failure
waits for the same. What remains visible is which of these few times it was. A round of a training job, which takes
seconds and has hundreds of others after it, may leave at three more times within each doubling, up to 12.8 s. Must not
know: data, plans, the network.
"""

from __future__ import annotations

import time
from math import ceil, log2

FIRST_S = 0.05
LAST_DOUBLED_S = 3.2
LAST_OF_ROUNDS_S = 12.8
ROUND_STEPS = 4
"""Times within a doubling at which a round of a job may leave."""


def leaves_after(elapsed: float, *, steps: int = 1) -> float:
    """Return the first scheduled time, in seconds after the announcement, that is not before `elapsed`.

    `steps` is 1 for a query, `ROUND_STEPS` for a round of a job.
    """
    if elapsed <= FIRST_S:
        return FIRST_S
    if elapsed <= (LAST_DOUBLED_S if steps == 1 else LAST_OF_ROUNDS_S):
        return float(FIRST_S * 2.0 ** (ceil(steps * log2(elapsed / FIRST_S) - 1e-9) / steps))
    return LAST_DOUBLED_S * ceil(elapsed / LAST_DOUBLED_S - 1e-9)


def wait(since: float, *, steps: int = 1) -> None:
    """Sleep until the next scheduled time after `since`, an instant of the monotonic clock."""
    elapsed = time.monotonic() - since
    time.sleep(max(0.0, leaves_after(elapsed, steps=steps) - elapsed))
