"""Obvious twins of the draws: one number at a time, in Python's integers."""

from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate

_MASK = (1 << 64) - 1


def splitmix64(seed: int, position: int) -> int:
    """Output ``position`` (from 0) of SplitMix64, as in Steele, Lea and Flood, OOPSLA 2014, figure 17."""
    state = (seed + (position + 1) * 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def uniform_one(seed: int, position: int) -> float:
    """The 24 leading bits of that output, as a share of 1."""
    return (splitmix64(seed, position) >> 40) / 2**24


def spread_rank_one(uniform: float, i: int, k: int, count: int) -> int:
    """One of the integers in ``[i count / k, (i + 1) count / k)``; the last before it if there is none."""
    part = [j for j in range(count) if i * count <= j * k < (i + 1) * count]
    return part[int(uniform * len(part))] if part else i * count // k


def weighted_rank_one(uniform: float, weights: list[float]) -> int:
    """The item in whose share of the total the number falls, in exact arithmetic."""
    ends = list(accumulate(Fraction(w) for w in weights))
    return bisect_right(ends, Fraction(uniform) * ends[-1])
