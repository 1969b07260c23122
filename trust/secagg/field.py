"""Shamir secret sharing over the prime field of p = 2^256 - 189 (Shamir, CACM 22(11), 1979).

A secret is one field element; keys are derived from it by HKDF elsewhere. Elements travel as 32 big-endian bytes.
Must not know: rounds, members, messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from trust.secagg import polynomial

PRIME = polynomial.PRIME
ELEMENT_BYTES = 32

RandomBytes = Callable[[int], bytes]


def random_element(random_bytes: RandomBytes) -> int:
    """Return a uniform field element, by rejection: 32 bytes are drawn until they are below the prime."""
    while True:
        value = int.from_bytes(random_bytes(ELEMENT_BYTES), "big")
        if value < PRIME:
            return value


def element_bytes(value: int) -> bytes:
    """Return a field element as 32 big-endian bytes."""
    return value.to_bytes(ELEMENT_BYTES, "big")


def parse_element(data: bytes) -> int:
    """Return the field element that 32 bytes encode. Raises ValueError for another length or a value of p or above."""
    if len(data) != ELEMENT_BYTES:
        raise ValueError(f"a field element has {ELEMENT_BYTES} bytes, not {len(data)}")
    value = int.from_bytes(data, "big")
    if value >= PRIME:
        raise ValueError("a field element is below 2^256 - 189")
    return value


def split(secret: int, threshold: int, holders: int, random_bytes: RandomBytes) -> list[int]:
    """Return shares of `secret` at x = 1, ..., holders: any `threshold` reconstruct it, fewer say nothing.

    The polynomial's other coefficients are uniform, the leading one included: forbidding zero would leak.
    """
    coefficients = [random_element(random_bytes) for _ in range(threshold - 1)]
    return polynomial.evaluate([*coefficients, secret], holders)


@lru_cache(maxsize=256)
def lagrange_row(xs: tuple[int, ...]) -> tuple[int, ...]:
    """Return the weights that interpolate at zero from the distinct, non-zero abscissae `xs`. Cached: sets recur."""
    numerators, denominators = [], []
    for i, x in enumerate(xs):
        top = bottom = 1
        for j, other in enumerate(xs):
            if j != i:
                top = top * other % PRIME
                bottom = bottom * (other - x) % PRIME
        numerators.append(top)
        denominators.append(bottom)
    inverses = _invert_all(denominators)
    return tuple(top * inverse % PRIME for top, inverse in zip(numerators, inverses, strict=True))


def _invert_all(values: Sequence[int]) -> list[int]:
    """Return the inverses of non-zero elements with one modular inversion (Montgomery's trick)."""
    prefixes = [1]
    for value in values:
        prefixes.append(prefixes[-1] * value % PRIME)
    inverse = pow(prefixes[-1], -1, PRIME)
    inverses = [0] * len(values)
    for i in range(len(values) - 1, -1, -1):
        inverses[i] = inverse * prefixes[i] % PRIME
        inverse = inverse * values[i] % PRIME
    return inverses


def reconstruct(xs: tuple[int, ...], shares: Sequence[int]) -> int:
    """Return the secret of the polynomial of degree below len(xs) through the points (xs, shares)."""
    return sum(weight * share for weight, share in zip(lagrange_row(xs), shares, strict=True)) % PRIME
