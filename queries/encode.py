"""The query on the wire: `ir` to the bytes of `protos/v1/query.proto` and back.

One query has exactly one encoding: `decode_query` refuses every byte string that `encode_query` would not have made, so
that what was signed, logged and answered is one thing. Fields of a later version are refused too, never ignored: an
agent must not answer half of a question. Must not know: schemas; names and literals are judged by `resolve`.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from protos.v1 import query_pb2
from queries import ir
from queries.encode_conditions import get_expression, get_predicate, number_of, put_expression, put_predicate, text_of
from queries.encode_models import get_model, put_model
from queries.errors import QueryError
from queries.limits import MAX_AGGREGATES, MAX_DERIVED, MAX_KEYS, MAX_QUERY_BYTES, walk, walk_expression

_MAX_UINT32 = (1 << 32) - 1
_DECODE_ERRORS = (DecodeError, ValueError, RecursionError)
"""What protobuf raises on bytes that are no message: malformed, text that is not UTF-8, nested too deep."""


def encode_query(query: ir.Query, *, most: int = MAX_AGGREGATES) -> bytes:
    """Return the one encoding of a query. Raise QueryError where it has none or passes a cap.

    `most` as for `resolve`.
    """
    _check_counts(len(query.aggregates), len(query.keys), len(query.derived), most)
    message = query_pb2.Query()
    try:
        message.dataset = text_of(query.dataset)
        if query.where is not None:
            for _node in walk(query.where):
                pass  # raises before the recursion below can go deep
            put_predicate(message.where, query.where)
        for key in query.keys:
            message.keys.add(column=text_of(key.column), values=[text_of(value) for value in key.values])
        for named in query.aggregates:
            out = message.aggregates.add(name=text_of(named.name))
            _put_aggregate(out, named.aggregate)
            if named.weight != 1:
                out.weight = _count(named.weight, "a weight", least=1)
        for each in query.derived:
            for _part in walk_expression(each.value):
                pass  # as for conditions
            put_expression(message.derived.add(name=text_of(each.name)).value, each.value)
        if query.rows_per_person is not None:
            message.rows_per_person = _count(query.rows_per_person, "rows_per_person", least=1)
        data: bytes = message.SerializeToString(deterministic=True)
    except (TypeError, AttributeError, UnicodeError) as error:
        raise QueryError("the query holds a value of the wrong type", hint="build it with queries.builder") from error
    if len(data) > MAX_QUERY_BYTES:
        raise QueryError(f"the query is longer than {MAX_QUERY_BYTES // 1024} KiB", hint="ask a shorter question")
    return data


def decode_query(data: bytes, *, most: int = MAX_AGGREGATES) -> ir.Query:
    """Return the query that these bytes encode. Raise QueryError, and nothing else, on any other bytes."""
    if len(data) > MAX_QUERY_BYTES:
        raise QueryError(f"the query is longer than {MAX_QUERY_BYTES // 1024} KiB", hint="ask a shorter question")
    message = query_pb2.Query()
    try:
        message.ParseFromString(data)
    except _DECODE_ERRORS as error:
        raise QueryError("these bytes are not a query", hint="make them with queries.encode") from error
    _check_counts(len(message.aggregates), len(message.keys), len(message.derived), most)
    query = ir.Query(
        dataset=text_of(message.dataset),
        aggregates=tuple(
            ir.NamedAggregate(text_of(named.name), _get_aggregate(named), named.weight or 1)
            for named in message.aggregates
        ),
        where=get_predicate(message.where) if message.HasField("where") else None,
        keys=tuple(ir.Key(text_of(key.column), tuple(text_of(value) for value in key.values)) for key in message.keys),
        rows_per_person=message.rows_per_person or None,
        derived=tuple(ir.Derived(text_of(each.name), get_expression(each.value)) for each in message.derived),
    )
    if encode_query(query, most=most) != data:
        raise QueryError(
            "these bytes are not the one encoding of a query", hint="they hold fields that this version does not know"
        )
    return query


def _check_counts(aggregates: int, keys: int, derived: int, most: int) -> None:
    if derived > MAX_DERIVED:
        raise QueryError(f"the query derives more than {MAX_DERIVED} values", hint="split it into several queries")
    if aggregates > most:
        raise QueryError(f"the query has more than {most} aggregates", hint="split it into several queries")
    if keys > MAX_KEYS:
        raise QueryError(f"the query groups by more than {MAX_KEYS} columns", hint="group by fewer columns")


def _count(value: object, what: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_UINT32:
        raise QueryError(f"{what} must be an integer of at least {least}")
    return value


def _put_aggregate(out: query_pb2.NamedAggregate, aggregate: ir.Aggregate) -> None:  # noqa: PLR0912 -- one a node
    match aggregate:
        case ir.Count(column):
            out.count.SetInParent()
            if column is not None:
                out.count.column = text_of(column)
        case ir.Sum(column):
            out.sum.column = text_of(column)
        case ir.Mean(column):
            out.mean.column = text_of(column)
        case ir.Variance(column, ddof):
            out.variance.column, out.variance.ddof = text_of(column), _count(ddof, "ddof", least=0)
        case ir.Stddev(column, ddof):
            out.stddev.column, out.stddev.ddof = text_of(column), _count(ddof, "ddof", least=0)
        case ir.Histogram(column, edges):
            out.histogram.column = text_of(column)
            out.histogram.edges.extend(number_of(edge) for edge in edges)
        case ir.Persons():
            out.persons.SetInParent()
        case ir.Quantile(column, q):
            out.quantile.column, out.quantile.q = text_of(column), number_of(q)
        case ir.Skewness(column):
            out.skewness.column = text_of(column)
        case ir.Kurtosis(column):
            out.kurtosis.column = text_of(column)
        case _ if isinstance(aggregate, ir.Model):
            put_model(out, aggregate)
        case _:
            raise QueryError("the query holds an aggregate of an unknown kind", hint="build it with queries.builder")


def _get_aggregate(named: query_pb2.NamedAggregate) -> ir.Aggregate:  # noqa: PLR0911 -- one return a node
    match named.WhichOneof("kind"):
        case "count":
            return ir.Count(named.count.column or None)
        case "sum":
            return ir.Sum(text_of(named.sum.column))
        case "mean":
            return ir.Mean(text_of(named.mean.column))
        case "variance":
            return ir.Variance(text_of(named.variance.column), named.variance.ddof)
        case "stddev":
            return ir.Stddev(text_of(named.stddev.column), named.stddev.ddof)
        case "histogram":
            return ir.Histogram(text_of(named.histogram.column), tuple(number_of(e) for e in named.histogram.edges))
        case "persons":
            return ir.Persons()
        case "quantile":
            return ir.Quantile(text_of(named.quantile.column), number_of(named.quantile.q))
        case "skewness":
            return ir.Skewness(text_of(named.skewness.column))
        case "kurtosis":
            return ir.Kurtosis(text_of(named.kurtosis.column))
        case str(kind):
            return get_model(kind, named)
        case _:
            raise QueryError("an aggregate in the query is empty")
