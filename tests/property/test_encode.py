"""The wire form of a query: one encoding each, and QueryError alone on anything else."""

from __future__ import annotations

import math

import pytest
from harness.nodes import expressions, models
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protos.v1 import query_pb2
from queries import ir
from queries.encode import decode_query, encode_query
from queries.errors import QueryError
from queries.limits import MAX_BINS, MAX_DEPTH, MAX_NODES, MAX_QUERY_BYTES

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = numbers | st.text(st.characters(codec="utf-8"), max_size=12)
leaves = (
    st.builds(ir.Comparison, names, st.sampled_from(ir.OPERATORS), scalars)
    | st.builds(ir.IsIn, names, st.lists(scalars, max_size=4).map(tuple))
    | st.builds(ir.IsNull, names)
)
predicates: st.SearchStrategy[ir.Predicate] = st.recursive(
    leaves,
    lambda inner: (
        st.builds(ir.Not, inner)
        | st.lists(inner, max_size=3).map(lambda parts: ir.AllOf(tuple(parts)))
        | st.lists(inner, max_size=3).map(lambda parts: ir.AnyOf(tuple(parts)))
    ),
    max_leaves=12,
)
aggregates = (
    st.builds(ir.Count, st.none() | names)
    | st.builds(ir.Sum, names)
    | st.builds(ir.Mean, names)
    | st.builds(ir.Variance, names, st.integers(0, 1))
    | st.builds(ir.Stddev, names, st.integers(0, 1))
    | st.just(ir.Persons())
    | st.builds(ir.Quantile, names, st.floats(0, 1))
    | st.builds(ir.Skewness, names)
    | st.builds(ir.Kurtosis, names)
    | st.builds(ir.Histogram, names, st.lists(numbers, max_size=5).map(tuple))
    | st.builds(ir.MeanTest, names, numbers, st.none() | names)
    | models(["x", "y", "z"], [("g", ["a", "b", "c"]), ("h", ["0", "1"])], [0.0, 1.5, 4.0])
)
queries = st.builds(
    ir.Query,
    names,
    st.lists(st.builds(ir.NamedAggregate, names, aggregates, st.integers(1, 2**32 - 1)), max_size=4).map(tuple),
    st.none() | predicates,
    st.lists(st.builds(ir.Key, names, st.lists(names, max_size=3).map(tuple)), max_size=3).map(tuple),
    st.none() | st.integers(1, 2**32 - 1),
    st.lists(st.builds(ir.Derived, names, expressions(["x", "y"], predicates)), max_size=3).map(tuple),
)
SIMPLE = ir.Query("patients", (ir.NamedAggregate("n", ir.Count()),), ir.Comparison("age", ">=", 18.0))


def nested(levels: int) -> ir.Predicate:
    node: ir.Predicate = ir.IsNull("age")
    for _ in range(levels - 1):
        node = ir.AllOf((node,))
    return node


@given(queries)
def test_what_is_decoded_is_what_was_encoded(query: ir.Query) -> None:
    data = encode_query(query)
    assert decode_query(data) == query
    assert encode_query(decode_query(data)) == data


@given(queries, queries)
def test_two_queries_share_bytes_only_if_they_are_equal(one: ir.Query, other: ir.Query) -> None:
    assert (encode_query(one) == encode_query(other)) == (one == other)


@given(st.binary(max_size=200))
@example(b"\x0a\x02\xff\xfe")
def test_arbitrary_bytes_are_refused_as_a_query_error_or_are_a_query(data: bytes) -> None:
    try:
        query = decode_query(data)
    except QueryError:
        return
    assert encode_query(query) == data


@settings(max_examples=300)
@given(queries, st.data())
def test_damaged_bytes_never_pass_for_the_original(query: ir.Query, data: st.DataObject) -> None:
    good = encode_query(query)
    at = data.draw(st.integers(0, len(good)))
    patch = data.draw(st.binary(max_size=4))
    cut = data.draw(st.integers(0, 4))
    bad = good[:at] + patch + good[at + cut :]
    if bad == good:
        return
    try:
        decoded = decode_query(bad)
    except QueryError:
        return
    assert decoded != query
    assert encode_query(decoded) == bad


def test_a_second_encoding_of_the_same_query_is_refused() -> None:
    good = encode_query(SIMPLE)
    assert good.startswith(b"\x0a\x08patients")
    field = 15 << 3 | 2
    for other in (
        good + bytes((field, 1, 0)),  # a field of a later version
        b"\x0a\x88\x00" + good[2:],  # a length in two bytes instead of one
        b"\x0a\x01x" + good,  # a field twice, of which the last one counts
        good + b"\x28\x00",  # a default that is left out
    ):
        with pytest.raises(QueryError, match="not the one encoding"):
            decode_query(other)


def test_minus_zero_has_no_encoding_of_its_own() -> None:
    plus, minus = (ir.Query("d", (), ir.Comparison("x", "=", zero)) for zero in (0.0, -0.0))
    assert encode_query(plus) == encode_query(minus)


def test_depth_is_capped_before_anything_recurses() -> None:
    deepest = ir.Query("d", (), nested(MAX_DEPTH))
    assert decode_query(encode_query(deepest)) == deepest
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(QueryError, match="nested more than"):
            encode_query(ir.Query("d", (), nested(levels)))


@pytest.mark.parametrize("levels", [MAX_DEPTH, 45, 48, 60, 2000])
def test_bytes_nested_deeper_than_the_cap_are_refused(levels: int) -> None:
    inner = b""
    for _ in range(levels):  # all_of { parts { ... } }, length-delimited by hand: protobuf itself stops early
        part = b"\x0a" + varint(len(inner)) + inner
        inner = b"\x22" + varint(len(part)) + part
    data = b"\x0a\x01d\x12" + varint(len(inner)) + inner
    with pytest.raises(QueryError):
        decode_query(data)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes((value & 0x7F | 0x80,)), value >> 7
    return out + bytes((value,))


def test_size_is_capped() -> None:
    widest = ir.Query("d", (ir.NamedAggregate("h", ir.Histogram("x", tuple(float(i) for i in range(MAX_BINS + 1)))),))
    assert len(encode_query(widest)) < MAX_QUERY_BYTES
    too_long = ir.Query("d", (), ir.IsIn("x", ("y" * 1000,) * 200))
    with pytest.raises(QueryError, match="longer than"):
        encode_query(too_long)
    with pytest.raises(QueryError, match="longer than"):
        decode_query(bytes(MAX_QUERY_BYTES + 1))
    with pytest.raises(QueryError, match="more than 1,500 parts"):
        encode_query(ir.Query("d", (), ir.IsIn("x", (1.0,) * MAX_NODES)))
    with pytest.raises(QueryError, match="more than 64 aggregates"):
        encode_query(ir.Query("d", (ir.NamedAggregate("n", ir.Count()),) * 65))
    crowded = query_pb2.Query(dataset="d", keys=[query_pb2.Key(column="k")] * 9)
    with pytest.raises(QueryError, match="groups by more than 8"):
        decode_query(crowded.SerializeToString())


@pytest.mark.parametrize(
    "query",
    [
        ir.Query("", ()),
        ir.Query("d", (ir.NamedAggregate("", ir.Count()),)),
        ir.Query("d", (ir.NamedAggregate("n", ir.Count("")),)),
        ir.Query("d", (), ir.IsNull("")),
        ir.Query("d", (), ir.Comparison("x", "~", 1.0)),  # type: ignore[arg-type]  # a wrong operator
        ir.Query("d", (), ir.Comparison("x", "=", math.nan)),
        ir.Query("d", (), ir.IsIn("x", (math.inf,))),
        ir.Query("d", (), ir.Comparison("x", "=", 10**400)),
        ir.Query("d", (), ir.Comparison("x", "=", True)),
        ir.Query("d", (), ir.Comparison("x", "=", None)),  # type: ignore[arg-type]  # no literal
        ir.Query("d", (), ir.Comparison("x", "=", "\ud800")),
        ir.Query("\ud800", ()),
        ir.Query("d", (), keys=(ir.Key("k", ("",)),)),
        ir.Query("d", (), rows_per_person=0),
        ir.Query("d", (), rows_per_person=2**32),
        ir.Query("d", (ir.NamedAggregate("h", ir.Histogram("x", (0.0, math.nan))),)),
        ir.Query("d", (ir.NamedAggregate("v", ir.Variance("x", -1)),)),
        ir.Query("d", (ir.NamedAggregate("v", "count"),)),  # type: ignore[arg-type]  # no aggregate
        ir.Query("d", (), "age > 3"),  # type: ignore[arg-type]  # no predicate
    ],
)
def test_what_has_no_encoding_is_a_query_error(query: ir.Query) -> None:
    with pytest.raises(QueryError):
        encode_query(query)


@pytest.mark.parametrize(
    "message",
    [
        query_pb2.Query(),
        query_pb2.Query(dataset="d", aggregates=[query_pb2.NamedAggregate(name="n")]),
        query_pb2.Query(dataset="d", where=query_pb2.Predicate()),
        query_pb2.Query(
            dataset="d",
            where=query_pb2.Predicate(comparison=query_pb2.Predicate.Comparison(column="x", operator="=")),
        ),
        query_pb2.Query(
            dataset="d",
            where=query_pb2.Predicate(
                comparison=query_pb2.Predicate.Comparison(column="x", operator="LIKE", value=query_pb2.Value(number=1))
            ),
        ),
        query_pb2.Query(
            dataset="d",
            where=query_pb2.Predicate(
                comparison=query_pb2.Predicate.Comparison(
                    column="x", operator="=", value=query_pb2.Value(number=math.nan)
                )
            ),
        ),
        query_pb2.Query(dataset="d", where=query_pb2.Predicate(negation=query_pb2.Predicate())),
    ],
)
def test_messages_that_say_nothing_are_refused(message: query_pb2.Query) -> None:
    with pytest.raises(QueryError):
        decode_query(message.SerializeToString())
