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
MAX_NODES = 1_500
"""Predicates and IN values together, or all parts of all expressions: an engine plans that in under a second."""
MAX_DERIVED = 64
MAX_EXPRESSION_DEPTH = 24
"""Deepest expression: a level costs at most three nested messages."""
MAX_EXPRESSION_NODES = 512
MAX_CASE_DEPTH = 8
"""Deepest condition inside of an expression."""
MAX_AGGREGATES = 64
MAX_FEATURES = 1024
"""Columns that a training job may read: the pixels of an image of 32 x 32."""
MAX_KEYS = 8
MAX_BINS = 10_000
"""Bins of one numeric histogram."""
MAX_CELLS = 1_000_000
"""Numbers in one answer: groups times outputs, where every bin of a histogram is an output."""


def walk_expression(root: ir.Expression) -> Iterator[ir.Expression]:
    """Yield every node of an expression, parents before parts. Raise QueryError where it passes a cap."""
    nodes = 0
    pending: list[tuple[ir.Expression, int]] = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_EXPRESSION_DEPTH:
            raise QueryError(
                f"an expression is nested more than {MAX_EXPRESSION_DEPTH} levels deep",
                hint="give a part of it a name of its own, or use parentheses: (a + b) + (c + d)",
            )
        nodes += 1
        for condition in ir.conditions_of(node):
            nodes += sum(1 for _part in walk(condition, most=MAX_CASE_DEPTH))
        parts = ir.parts_of(node)
        if nodes + len(pending) + len(parts) > MAX_EXPRESSION_NODES:
            raise QueryError(f"an expression has more than {MAX_EXPRESSION_NODES} parts", hint="ask a shorter question")
        yield node
        pending.extend((part, depth + 1) for part in reversed(parts))


def walk(root: ir.Predicate, most: int = MAX_DEPTH) -> Iterator[ir.Predicate]:
    """Yield every node, parents before parts. Raise QueryError at the first one deeper than `most`, or at MAX_NODES."""
    nodes = 0
    pending: list[tuple[ir.Predicate, int]] = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > most:
            raise QueryError(
                f"the condition is nested more than {most} levels deep",
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
