"""How large a question may be: the caps that SQL, the wire and `resolve` all obey, and the walk that enforces them.

Whoever visits a predicate does it through `walk`, which needs no stack and stops at the caps, so that no question,
however it was made, can exhaust a reader's stack or time. Must not know: schemas, SQL, protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator

from queries import ir
from queries.errors import QueryError

MAX_SQL_BYTES = 64 * 1024
"""Longest SQL text, in UTF-8 bytes."""
MAX_QUERY_BYTES = 128 * 1024
"""Longest encoded query: the edges of one histogram with MAX_BINS bins take 80,008 bytes."""
MAX_JOB_BYTES = 4 * MAX_QUERY_BYTES
"""Longest encoded training job."""
MAX_DEPTH = 32
"""Deepest predicate. One level costs at most two nested messages, and every protobuf reader stops at 100."""
MAX_NODES = 10_000
"""Predicates and IN values together."""
MAX_AGGREGATES = 64
MAX_KEYS = 8
MAX_BINS = 10_000
"""Bins of one numeric histogram."""
MAX_CELLS = 1_000_000
"""Numbers in one answer: groups times outputs, where every bin of a histogram is an output."""


def walk(root: ir.Predicate) -> Iterator[ir.Predicate]:
    """Yield every node, parents before parts. Raise QueryError at the first one beyond MAX_DEPTH or MAX_NODES."""
    nodes = 0
    pending: list[tuple[ir.Predicate, int]] = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise QueryError(
                f"the condition is nested more than {MAX_DEPTH} levels deep",
                hint="use IN, or fewer NOTs",
            )
        nodes += 1 + (len(node.values) if isinstance(node, ir.IsIn) else 0)
        parts: tuple[ir.Predicate, ...] = ()
        if isinstance(node, ir.AllOf | ir.AnyOf):
            parts = node.parts
        elif isinstance(node, ir.Not):
            parts = (node.part,)
        if nodes + len(pending) + len(parts) > MAX_NODES:
            raise QueryError(f"the condition has more than {MAX_NODES:,} parts", hint="ask a shorter question")
        yield node
        pending.extend((part, depth + 1) for part in reversed(parts))
