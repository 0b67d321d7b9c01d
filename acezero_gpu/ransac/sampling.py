"""Random minimal samples of fixed size, from ragged sets, without loops."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def usable_first(usable: Bool[Tensor, "*batch n"]) -> Int64[Tensor, "*batch n"]:
    """A permutation that lists the usable items first, in their order: rank to index."""
    return (~usable).to(torch.uint8).argsort(dim=-1, stable=True)


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


def draw_uniform(
    shape: tuple[int, ...], generator: torch.Generator, device: torch.device
) -> Float[Tensor, "..."]:
    """Numbers in [0, 1), drawn where the generator lives, so that each device gets the same samples."""
    numbers = torch.rand(shape, generator=generator, device=generator.device)
    return numbers.to(device, non_blocking=True)
