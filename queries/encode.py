"""The query on the wire: `ir` to the bytes of `protos/v1/query.proto` and back.

One query has exactly one encoding: `decode_query` refuses every byte string that `encode_query` would not have made, so
that what was signed, logged and answered is one thing. Fields of a later version are refused too, never ignored: an
agent must not answer half of a question. Must not know: schemas; names and literals are judged by `resolve`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from protos.v1 import query_pb2
from queries import ir
from queries.encode_models import get_model, put_model
from queries.errors import QueryError
from queries.limits import MAX_AGGREGATES, MAX_KEYS, MAX_QUERY_BYTES, walk

_MAX_UINT32 = (1 << 32) - 1
_DECODE_ERRORS = (DecodeError, ValueError, RecursionError)
"""What protobuf raises on bytes that are no message: malformed, text that is not UTF-8, nested too deep."""


def encode_query(query: ir.Query) -> bytes:
    """Return the one encoding of a query. Raise QueryError where it has none or passes a cap."""
    _check_counts(len(query.aggregates), len(query.keys))
    message = query_pb2.Query()
    try:
        message.dataset = _text(query.dataset)
        if query.where is not None:
            for _node in walk(query.where):
                pass  # raises before the recursion below can go deep
            _put_predicate(message.where, query.where)
        for key in query.keys:
            message.keys.add(column=_text(key.column), values=[_text(value) for value in key.values])
        for named in query.aggregates:
            _put_aggregate(message.aggregates.add(name=_text(named.name)), named.aggregate)
        if query.rows_per_person is not None:
            message.rows_per_person = _count(query.rows_per_person, "rows_per_person", least=1)
        data: bytes = message.SerializeToString(deterministic=True)
    except (TypeError, AttributeError, UnicodeError) as error:
        raise QueryError("the query holds a value of the wrong type", hint="build it with queries.builder") from error
    if len(data) > MAX_QUERY_BYTES:
        raise QueryError(f"the query is longer than {MAX_QUERY_BYTES // 1024} KiB", hint="ask a shorter question")
    return data


def decode_query(data: bytes) -> ir.Query:
    """Return the query that these bytes encode. Raise QueryError, and nothing else, on any other bytes."""
    if len(data) > MAX_QUERY_BYTES:
        raise QueryError(f"the query is longer than {MAX_QUERY_BYTES // 1024} KiB", hint="ask a shorter question")
    message = query_pb2.Query()
    try:
        message.ParseFromString(data)
    except _DECODE_ERRORS as error:
        raise QueryError("these bytes are not a query", hint="make them with queries.encode") from error
    _check_counts(len(message.aggregates), len(message.keys))
    query = ir.Query(
        dataset=_text(message.dataset),
        aggregates=tuple(ir.NamedAggregate(_text(named.name), _get_aggregate(named)) for named in message.aggregates),
        where=_get_predicate(message.where) if message.HasField("where") else None,
        keys=tuple(ir.Key(_text(key.column), tuple(_text(value) for value in key.values)) for key in message.keys),
        rows_per_person=message.rows_per_person or None,
    )
    if encode_query(query) != data:
        raise QueryError(
            "these bytes are not the one encoding of a query", hint="they hold fields that this version does not know"
        )
    return query


def _check_counts(aggregates: int, keys: int) -> None:
    if aggregates > MAX_AGGREGATES:
        raise QueryError(f"the query has more than {MAX_AGGREGATES} aggregates", hint="split it into several queries")
    if keys > MAX_KEYS:
        raise QueryError(f"the query groups by more than {MAX_KEYS} columns", hint="group by fewer columns")


def _text(value: object) -> str:
    # On the wire an empty text is the same as none, so an empty name would have a second reading.
    if not isinstance(value, str):
        raise QueryError("a name or category must be text")
    if not value:
        raise QueryError("a name or category is empty", hint="every column, output and category has a name")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QueryError("a literal must be a number or a text")
    try:
        number = float(value)
    except OverflowError as error:
        raise QueryError("a number in the query is too large") from error
    if not math.isfinite(number):
        raise QueryError("a number in the query is not finite", hint="NaN and infinity cannot be compared with")
    return number + 0.0  # -0.0 equals 0.0, so it must not have an encoding of its own


def _count(value: object, what: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_UINT32:
        raise QueryError(f"{what} must be an integer of at least {least}")
    return value


def _put_values(out: query_pb2.Predicate.IsIn, values: Iterable[ir.Scalar]) -> None:
    for value in values:
        _put_value(out.values.add(), value)


def _put_value(out: query_pb2.Value, value: ir.Scalar) -> None:
    if isinstance(value, str):
        out.text = value
    else:
        out.number = _number(value)


def _put_predicate(out: query_pb2.Predicate, node: ir.Predicate) -> None:
    match node:
        case ir.Comparison(column, operator, value):
            if operator not in ir.OPERATORS:
                raise QueryError("the query compares with an unknown operator", hint=f"one of {' '.join(ir.OPERATORS)}")
            out.comparison.column, out.comparison.operator = _text(column), operator
            _put_value(out.comparison.value, value)
        case ir.IsIn(column, values):
            out.is_in.column = _text(column)
            _put_values(out.is_in, values)
        case ir.IsNull(column):
            out.is_null.column = _text(column)
        case ir.AllOf(parts):
            out.all_of.SetInParent()
            for part in parts:
                _put_predicate(out.all_of.parts.add(), part)
        case ir.AnyOf(parts):
            out.any_of.SetInParent()
            for part in parts:
                _put_predicate(out.any_of.parts.add(), part)
        case ir.Not(part):
            out.negation.SetInParent()
            _put_predicate(out.negation, part)
        case _:
            raise QueryError("the query holds a condition of an unknown kind", hint="build it with queries.builder")


def _get_value(value: query_pb2.Value) -> ir.Scalar:
    match value.WhichOneof("kind"):
        case "number":
            return _number(value.number)
        case "text":
            return value.text
        case _:
            raise QueryError("a literal in the query has no value")


def _get_predicate(message: query_pb2.Predicate) -> ir.Predicate:
    # Recursion is bounded by the parser, which refuses more than 100 nested messages.
    match message.WhichOneof("kind"):
        case "comparison":
            node = message.comparison
            for operator in ir.OPERATORS:
                if operator == node.operator:
                    return ir.Comparison(_text(node.column), operator, _get_value(node.value))
            raise QueryError("the query compares with an unknown operator", hint=f"one of {' '.join(ir.OPERATORS)}")
        case "is_in":
            return ir.IsIn(_text(message.is_in.column), tuple(_get_value(value) for value in message.is_in.values))
        case "is_null":
            return ir.IsNull(_text(message.is_null.column))
        case "all_of":
            return ir.AllOf(tuple(_get_predicate(part) for part in message.all_of.parts))
        case "any_of":
            return ir.AnyOf(tuple(_get_predicate(part) for part in message.any_of.parts))
        case "negation":
            return ir.Not(_get_predicate(message.negation))
        case _:
            raise QueryError("a condition in the query is empty")


def _put_aggregate(out: query_pb2.NamedAggregate, aggregate: ir.Aggregate) -> None:  # noqa: PLR0912 -- one a node
    match aggregate:
        case ir.Count(column):
            out.count.SetInParent()
            if column is not None:
                out.count.column = _text(column)
        case ir.Sum(column):
            out.sum.column = _text(column)
        case ir.Mean(column):
            out.mean.column = _text(column)
        case ir.Variance(column, ddof):
            out.variance.column, out.variance.ddof = _text(column), _count(ddof, "ddof", least=0)
        case ir.Stddev(column, ddof):
            out.stddev.column, out.stddev.ddof = _text(column), _count(ddof, "ddof", least=0)
        case ir.Histogram(column, edges):
            out.histogram.column = _text(column)
            out.histogram.edges.extend(_number(edge) for edge in edges)
        case ir.Persons():
            out.persons.SetInParent()
        case ir.Quantile(column, q):
            out.quantile.column, out.quantile.q = _text(column), _number(q)
        case ir.Skewness(column):
            out.skewness.column = _text(column)
        case ir.Kurtosis(column):
            out.kurtosis.column = _text(column)
        case _ if isinstance(aggregate, ir.Model):
            put_model(out, aggregate)
        case _:
            raise QueryError("the query holds an aggregate of an unknown kind", hint="build it with queries.builder")


def _get_aggregate(named: query_pb2.NamedAggregate) -> ir.Aggregate:  # noqa: PLR0911 -- one return a node
    match named.WhichOneof("kind"):
        case "count":
            return ir.Count(named.count.column or None)
        case "sum":
            return ir.Sum(_text(named.sum.column))
        case "mean":
            return ir.Mean(_text(named.mean.column))
        case "variance":
            return ir.Variance(_text(named.variance.column), named.variance.ddof)
        case "stddev":
            return ir.Stddev(_text(named.stddev.column), named.stddev.ddof)
        case "histogram":
            return ir.Histogram(_text(named.histogram.column), tuple(_number(e) for e in named.histogram.edges))
        case "persons":
            return ir.Persons()
        case "quantile":
            return ir.Quantile(_text(named.quantile.column), _number(named.quantile.q))
        case "skewness":
            return ir.Skewness(_text(named.skewness.column))
        case "kurtosis":
            return ir.Kurtosis(_text(named.kurtosis.column))
        case str(kind):
            return get_model(kind, named)
        case _:
            raise QueryError("an aggregate in the query is empty")
