"""e^-x of an exact rational x, in integers and to any precision, with a bound on the error.

Every probability of the samplers starts here. Must not know: noise, randomness, floating-point numbers.
"""

from __future__ import annotations

from fractions import Fraction


def exp_minus(x: Fraction, bits: int) -> int:
    """Return an integer y with |y - e^-x 2^bits| < 1, for x >= 0.

    Taylor series at z = x / 2^h < 2^-8, squared h times. In units of the last working bit: z is off by at most 1, each
    of the at most work/8 + 1 terms by at most 2, and a squaring takes an error e to at most 2e + 2; so e^-x is off by
    less than 2^h (work + 8), which the guard bits divide to below 2^-6 before the result is rounded to nearest.
    """
    if x < 0:
        raise ValueError("x must not be negative")
    if x >= bits:
        return 0  # e^-bits < 2^-bits
    halvings = int(x).bit_length() + 8
    guard = halvings + bits.bit_length() + 16
    work = bits + guard
    z = (x.numerator << work - halvings) // x.denominator
    total = term = 1 << work
    count = 0
    while term:
        count += 1
        term = (term * z >> work) // count
        total += -term if count % 2 else term
    for _ in range(halvings):
        total = total * total >> work
    return (total + (1 << guard - 1)) >> guard
