"""When an answer may leave: at fixed times after its announcement, so that its delay tells little about the data.

The times double from 50 ms to 3.2 s and are then 3.2 s apart. An answer waits for the first that it can meet; a failure
waits for the same. What remains visible is which of these few times it was. Must not know: data, plans, the network.
"""

from __future__ import annotations

import time
from math import ceil, log2

FIRST_S = 0.05
LAST_DOUBLED_S = 3.2


def leaves_after(elapsed: float) -> float:
    """Return the first scheduled time, in seconds after the announcement, that is not before `elapsed`."""
    if elapsed <= FIRST_S:
        return FIRST_S
    if elapsed <= LAST_DOUBLED_S:
        return FIRST_S * 2.0 ** ceil(log2(elapsed / FIRST_S) - 1e-9)
    return LAST_DOUBLED_S * ceil(elapsed / LAST_DOUBLED_S - 1e-9)


def wait(since: float) -> None:
    """Sleep until the next scheduled time after `since`, an instant of the monotonic clock."""
    elapsed = time.monotonic() - since
    time.sleep(max(0.0, leaves_after(elapsed) - elapsed))
