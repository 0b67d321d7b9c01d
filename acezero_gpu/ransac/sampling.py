"""Random minimal samples of fixed size, from ragged sets, without loops."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from acezero_gpu.runtime import compiled

_STEP = -0x61C8864680B583EB
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15
"""Odd constants of the SplitMix64 generator, as signed numbers."""


def usable_first(usable: Bool[Tensor, "batch n"]) -> Int64[Tensor, "batch n"]:
    """Indices of the usable items, in their order: rank to index; what follows them is in range, no more."""
    batch, n = usable.shape
    rank = usable.cumsum(-1) - 1
    order = torch.zeros(batch, n + 1, dtype=torch.int64, device=usable.device)
    item = torch.arange(n, device=usable.device).expand(batch, n)
    return order.scatter_(1, torch.where(usable, rank, n), item)[:, :n]


def distinct_ranks(
    uniform: Float[Tensor, "*batch k"], count: Int64[Tensor, "*#batch"]
) -> Int64[Tensor, "*batch k"]:
    """``k`` different integers of ``range(count)``, all ordered choices equally likely.

    The i-th draw is one of the ``count - i`` values that remain: it is moved past each value already taken,
    in ascending order. With ``count < k`` the last ranks repeat; callers reject such sets by their count.
    """
    taken: list[Tensor] = []
    ranks = []
    for i in range(uniform.shape[-1]):
        remaining = (count - i).clamp_min(1)
        rank = (uniform[..., i] * remaining).to(torch.int64)
        rank = torch.minimum(rank, remaining - 1)  # the product may round up to the bound in float32
        for smaller in taken:
            rank = rank + (rank >= smaller)
        rank = torch.minimum(rank, (count - 1).clamp_min(0))
        ranks.append(rank)
        taken = _insert_sorted(taken, rank)
    return torch.stack(ranks, dim=-1)


def _insert_sorted(ascending: list[Tensor], value: Tensor) -> list[Tensor]:
    result = []
    for item in ascending:
        result.append(torch.minimum(item, value))
        value = torch.maximum(item, value)
    return [*result, value]


@dataclass(frozen=True, slots=True)
class ImageStreams:
    """One stream of random numbers per image, every number of which can be computed on its own.

    A number depends on the image's seed and on its position in the stream only: not on the device, on the
    other images, on chunks, nor on how far other streams have been read. Reference: Steele, Lea and Flood,
    Fast splittable pseudorandom number generators, OOPSLA 2014 (SplitMix64, evaluated at any position).
    """

    seeds: Int64[Tensor, " batch"]

    @classmethod
    def draw(cls, batch: int, generator: torch.Generator, device: torch.device) -> "ImageStreams":
        """A seed for each image, drawn where the generator lives, so that each device gets the same ones."""
        seeds = torch.randint(1 << 62, (batch,), generator=generator, device=generator.device)
        return cls(seeds.to(device, non_blocking=True))

    def images(self, part: slice | Int64[Tensor, " some"]) -> "ImageStreams":
        """The streams of some of the images."""
        return ImageStreams(self.seeds[part])

    def uniform(self, first: int, count: int, *, compile: bool = False) -> Float32[Tensor, "batch count"]:
        """Numbers ``first`` to ``first + count`` of every stream, in [0, 1), multiples of 2^-24."""
        position = torch.arange(first, first + count, device=self.seeds.device)
        return (compiled(_splitmix) if compile else _splitmix)(self.seeds, position)


def _splitmix(seeds: Tensor, position: Tensor) -> Tensor:
    x = seeds[:, None] + _STEP * (position + 1)
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return _shifted(x ^ _shifted(x, 31), 40).to(torch.float32) * 2.0**-24


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of 64-bit integers, which PyTorch shifts arithmetically."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def weighted_ranks(
    uniform: Float[Tensor, "batch samples k"], weights: Float[Tensor, "batch n"]
) -> Int64[Tensor, "batch samples k"]:
    """Indices drawn with probabilities proportional to ``weights``, which need not sum to one.

    With replacement: a minimal solver takes no sample in which an index repeats.
    """
    cumulative = weights.double().cumsum(-1)
    target = uniform.flatten(1).double() * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, target, right=True)
    return index.clamp_max(weights.shape[-1] - 1).view(uniform.shape)


def spread_ranks(
    uniform: Float[Tensor, "*batch k"], count: Int64[Tensor, "*#batch"]
) -> Int64[Tensor, "*batch k"]:
    """``k`` ascending integers of ``range(count)``, one at random from each of ``k`` equal parts of it.

    The i-th part is ``[i count / k, (i + 1) count / k)``: all are different if ``count`` is at least ``k``.
    Otherwise some parts hold no integer; the one before stands in: all repeat evenly.
    """
    k = uniform.shape[-1]
    ends = torch.arange(k + 1, device=uniform.device) * count[..., None]
    first = (ends + (k - 1)) // k
    size = first.diff(dim=-1)
    rank = first[..., :-1] + (uniform * size).to(torch.int64)
    return torch.where(size > 0, rank, ends[..., :-1] // k)
