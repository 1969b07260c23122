"""Known answers of the noise samplers: one key gives one vector, here and in any other language.

`noise-v1.json` names the key, the summands (variance and factor, least significant first) and the digest of the draws
as little-endian 64-bit integers. They were made by the sampler below, which knows only docs/noise.md: it computes every
probability with 120 decimal digits and looks one number up at a time. To write the file anew after a deliberate change:
python tests/vectors/test_noise_vectors.py
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from trust.noise import gaussian, laplace
from trust.noise.stream import Stream

PATH = Path(__file__).with_name("noise-v1.json")
BLOCK, LAPLACE_BLOCK = 1 << 16, 1 << 12
Json = dict[str, Any]
Take = Callable[[int], int]


def taker(key: bytes) -> Take:
    """Return what takes so many bytes of AES-256-CTR from counter 0, as a little-endian integer."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return lambda count: int.from_bytes(cipher.update(bytes(count)), "little")


def words(take: Take, count: int, size: int) -> list[int]:
    """Return `count` words of `size` bytes."""
    content = take(count * size).to_bytes(count * size, "little")
    return [int.from_bytes(content[at : at + size], "little") for at in range(0, count * size, size)]


def cumulative(variance: Fraction) -> list[int]:
    """Return P(X <= x) 2^256 for x = -T..T-1, tails of less than 2^-132 cut, rounding left to 0."""
    with localcontext() as context:
        context.prec = 120
        one, weights = Decimal(1), [Decimal(1)]
        while True:
            x = len(weights)
            next_two = [(-Decimal(y * y * variance.denominator) / (2 * variance.numerator)).exp() for y in (x, x + 1)]
            if 2 * next_two[0] / (1 - next_two[1] / next_two[0]) < one / 2**132:
                break
            weights.append(next_two[0])
        total = weights[0] + 2 * sum(weights[1:])
        sides = [int(weight * 2**256 / total) for weight in weights[1:]]
    return list(accumulate([*reversed(sides), 2**256 - 2 * sum(sides), *sides][:-1]))


def summand(bounds: list[int], count: int, take: Take) -> Iterator[int]:
    """Draw `count` values: 16 bits each, 64 more for those that these do not decide, 176 more in a tie."""
    reach = len(bounds) // 2
    cells = words(take, count, 2)

    def within(low: int, high: int) -> tuple[int, int]:
        return bisect_right(bounds, low) - reach, bisect_right(bounds, high - 1) - reach

    ends = [within(cell << 240, cell + 1 << 240) for cell in cells]
    more = iter(words(take, sum(first != last for first, last in ends), 8))
    for cell, (first, last) in zip(cells, ends, strict=True):
        if first != last:
            uniform = (cell << 64 | next(more)) << 176
            first, last = within(uniform, uniform + (1 << 176))  # noqa: PLW2901 -- the ends, with more bits
            assert first == last, "no key of the file meets a tie"
        yield first


def gaussian_reference(levels: list[list[str]], length: int, key: bytes) -> list[int]:
    take = taker(key)
    tables = [(cumulative(Fraction(variance)), int(factor)) for variance, factor in levels]
    draws: list[int] = []
    while len(draws) < length:
        count = min(BLOCK, length - len(draws))
        block = [0] * count
        for bounds, factor in reversed(tables):
            block = [x + factor * y for x, y in zip(summand(bounds, count, take), block, strict=True)]
        draws += block
    return draws


def laplace_reference(scale: Fraction, part: Fraction, length: int, key: bytes) -> list[int]:
    take, levels = taker(key), 0
    while 2**levels < scale + 1:
        levels += 1
    draws: list[int] = []
    while len(draws) < length:
        count = min(LAPLACE_BLOCK, length - len(draws))
        numbers = poissons(2 * part * (levels + 1), count, take)
        jumps = iter(proposals(sum(numbers), scale, levels, take))
        draws += [sum(next(jumps) for _ in range(number)) for number in numbers]
    return draws


def poissons(rate: Fraction, count: int, take: Take) -> list[int]:
    with localcontext() as context:
        context.prec = 60
        mean = Decimal(rate.numerator) / rate.denominator
        term = total = (-mean).exp()
        bounds = [int(total * 2**64)]
        while bounds[-1] < 2**64 - 1:
            term = term * mean / len(bounds)
            total += term
            bounds.append(int(total * 2**64))
    drawn = words(take, count, 8)
    assert not set(drawn) & set(bounds), "no key of the file meets a tie"
    return [bisect_right(bounds, uniform) for uniform in drawn]


def proposals(count: int, scale: Fraction, levels: int, take: Take) -> list[int]:
    signs = [-1 if word % 2 else 1 for word in words(take, count, 8)]
    limit = 2**16 // (levels + 1) * (levels + 1)
    level = words(take, count, 2)
    while again := [place for place, word in enumerate(level) if word >= limit]:
        for place, word in zip(again, words(take, len(again), 2), strict=True):
            level[place] = word
    level = [word % (levels + 1) for word in level]
    jumps = [0] * count
    near = [place for place in range(count) if level[place] < levels]
    for place, word in zip(near, words(take, len(near), 8), strict=True):
        jumps[place] = 2 ** level[place] + word % 2 ** level[place]
    kept, open_ = [], near
    while open_:
        trials = [word % 2 ** (level[place] + 1) for place, word in zip(open_, words(take, len(open_), 8), strict=True)]
        kept += [place for place, trial in zip(open_, trials, strict=True) if trial < 2 ** level[place]]
        open_ = [place for place, trial in zip(open_, trials, strict=True) if trial >= jumps[place]]
    kept.sort()
    with localcontext() as context:
        context.prec = 60
        inverse = Decimal(scale.denominator) / scale.numerator
        yes = happen([(-jumps[place] * inverse).exp() for place in kept], take)
        for place in set(near) - {place for place, good in zip(kept, yes, strict=True) if good}:
            jumps[place] = 0
        far = [place for place in range(count) if level[place] == levels]
        sizes = [2**levels + more for more in geometrics(scale, len(far), take)]
        chance = (-(2**levels) * inverse).exp() / (1 - (-inverse).exp())
        for place, size, good in zip(far, sizes, happen([chance / size for size in sizes], take), strict=True):
            jumps[place] = size if good else 0
    return [sign * jump for sign, jump in zip(signs, jumps, strict=True)]


def happen(probabilities: list[Decimal], take: Take) -> list[bool]:
    drawn = words(take, len(probabilities), 8)
    return [uniform < int(2**64 * p) for uniform, p in zip(drawn, probabilities, strict=True)]


def geometrics(scale: Fraction, count: int, take: Take) -> list[int]:
    total, place = [0] * count, 0
    while 2**place < 45 * scale:
        odd = int(2**64 / (1 + (Decimal(2**place * scale.denominator) / scale.numerator).exp()))
        total = [t + ((u < odd) << place) for t, u in zip(total, words(take, count, 8), strict=True)]
        place += 1
    assert 0 not in words(take, count, 8)  # nothing is 2^places or more
    return total


def describe(draws: list[int]) -> Json:
    content = b"".join(x.to_bytes(8, "little", signed=True) for x in draws)
    return {"first": draws[:6], "sha256": hashlib.sha256(content).hexdigest()}


def cases() -> Json:
    return json.loads(PATH.read_text())


GAUSSIANS = range(8)
LAPLACES = range(5)


@pytest.mark.parametrize("index", GAUSSIANS)
def test_gaussian_draws_are_those_of_the_file(index: int) -> None:
    case = cases()["gaussian"][index]
    variance = Fraction(case["variance"])
    assert [[str(level.variance), str(level.factor)] for level in gaussian.split(variance)] == case["levels"]
    check(gaussian.draw(case["length"], variance, Stream(bytes.fromhex(case["key"]))), case)


@pytest.mark.parametrize("index", LAPLACES)
def test_laplace_draws_are_those_of_the_file(index: int) -> None:
    case = cases()["laplace"][index]
    scale, part, stream = Fraction(case["scale"]), Fraction(case["part"]), Stream(bytes.fromhex(case["key"]))
    check(laplace.draw(case["length"], scale, part, stream), case)


def check(draws: NDArray[np.int64], case: Json) -> None:
    assert draws[:6].tolist() == case["first"]
    assert hashlib.sha256(draws.astype("<i8").tobytes()).hexdigest() == case["sha256"]


@pytest.mark.parametrize("index", GAUSSIANS)
def test_the_slow_sampler_agrees_with_the_file(index: int) -> None:
    case = cases()["gaussian"][index]
    expected = describe(gaussian_reference(case["levels"], case["length"], bytes.fromhex(case["key"])))
    assert expected == {"first": case["first"], "sha256": case["sha256"]}


@pytest.mark.parametrize("index", LAPLACES)
def test_the_slow_laplace_sampler_agrees_with_the_file(index: int) -> None:
    case = cases()["laplace"][index]
    scale, part, key = Fraction(case["scale"]), Fraction(case["part"]), bytes.fromhex(case["key"])
    expected = describe(laplace_reference(scale, part, case["length"], key))
    assert expected == {"first": case["first"], "sha256": case["sha256"]}


def write() -> None:
    """Make the file from the slow samplers; the split of each variance is the one thing taken from the product."""
    out: Json = {"gaussian": [], "laplace": []}
    for variance, length in [
        ("1", 70_000),  # more than one block
        ("1/1000", 100),
        ("17/3", 5000),
        ("160000", 5000),
        ("160001", 5000),
        ("1000000", 70_000),
        ("1000000000000", 5000),
        (f"{2**88}/3", 2000),
    ]:
        key = hashlib.sha256(f"gaussian {variance}".encode()).digest()
        levels = [[str(level.variance), str(level.factor)] for level in gaussian.split(Fraction(variance))]
        described = describe(gaussian_reference(levels, length, key))
        out["gaussian"].append({"variance": variance, "levels": levels, "length": length, "key": key.hex()} | described)
    for scale, part, length in [
        ("1/3", "1", 1000),
        ("1", "1/3", 5000),  # more than one block
        ("64", "1/20", 5000),
        ("2000/3", "1/4", 2000),
        (str(2**44), "2/7", 1000),
    ]:
        key = hashlib.sha256(f"laplace {scale} {part}".encode()).digest()
        described = describe(laplace_reference(Fraction(scale), Fraction(part), length, key))
        out["laplace"].append({"scale": scale, "part": part, "length": length, "key": key.hex()} | described)
    PATH.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    write()
