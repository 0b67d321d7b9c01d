"""Which images look alike: one global descriptor per image, made from the encoder's own features."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.runtime import chunk_ranges

CENTRES = 32
KMEANS_ROUNDS = 8
TRAINING_CELLS = 16384
AT_ONCE = 16
"""Images whose features are looked at together."""
ORDERED_AT_ONCE = 256
"""Images whose look-alikes are ordered together."""


def global_descriptors(
    features_of: Callable[[Int[Tensor, " b"]], Float[Tensor, "b c rows cols"]],
    images: int,
    generator: torch.Generator,
) -> Float[Tensor, "n d"]:
    """VLAD (Jégou et al., CVPR 2010) over the cells, with intra- and power normalisation; unit norm.

    The vocabulary is learned from the set itself, so no download is needed; the dot product of two descriptors is
    their similarity. Cost is linear in the number of images, whose features are asked for twice, a few at a time.
    """
    sample = _random_cells(features_of, images, generator)
    centres = _kmeans(sample, min(CENTRES, len(sample)), generator)
    parts = []
    for part in torch.arange(images).split(AT_ONCE):
        x = features_of(part).flatten(2).float().transpose(1, 2)
        nearest = _nearest(x, centres)
        assigned = F.one_hot(nearest, len(centres)).to(x.dtype)
        sums = assigned.transpose(1, 2) @ x - assigned.sum(1)[..., None] * centres
        sums = F.normalize(sums, dim=-1)
        parts.append(F.normalize(sums.flatten(1).sign() * sums.flatten(1).abs().sqrt(), dim=-1))
    return torch.cat(parts)


def spread_ranks(count: int, available: int) -> list[int]:
    """``count`` ranks out of ``available``: the nearest ones densely, then ever sparser.

    In a video the most similar images are the neighbouring frames, which have hardly any parallax; the sparse
    tail brings wide baselines at the same cost.
    """
    ranks: list[int] = []
    step = 0.0
    while len(ranks) < min(count, available):
        rank = int(step)
        if rank >= available:
            break
        if not ranks or rank > ranks[-1]:
            ranks.append(rank)
        step = max(step + 1.0, step * 1.25)
    return ranks


def look_alike_pairs(similarity: Float[Tensor, "n n"], count: int) -> Int[Tensor, "p 2"]:
    """Every image with ``count`` look-alikes; each pair once, smaller index first."""
    images = len(similarity)
    ranks = torch.tensor(spread_ranks(count, images - 1), dtype=torch.long)
    rows = [torch.zeros(0, 2, dtype=torch.long)]
    for chunk in chunk_ranges(images, ORDERED_AT_ONCE):
        own = torch.arange(images)[chunk]
        score = similarity[chunk].clone()
        score[torch.arange(len(own)), own] = -torch.inf
        found = score.argsort(dim=1, descending=True).cpu()[:, ranks]
        rows.append(torch.stack([own[:, None].expand_as(found), found], dim=-1).flatten(0, 1))
    return torch.cat(rows).sort(dim=1).values.unique(dim=0)


def _random_cells(
    features_of: Callable[[Int[Tensor, " b"]], Float[Tensor, "b c rows cols"]],
    images: int,
    generator: torch.Generator,
) -> Float[Tensor, "s c"]:
    """Of all images, drawn with replacement, in the order of the draw."""
    first = features_of(torch.arange(min(AT_ONCE, images)))
    cells = first.shape[2] * first.shape[3]
    count = min(TRAINING_CELLS, images * cells)
    draw = torch.randint(images * cells, (count,), generator=generator, device=generator.device).cpu()
    sample = first.new_empty(count, first.shape[1], dtype=torch.float32)
    for part in torch.arange(images).split(AT_ONCE):
        features = (first if int(part[0]) == 0 else features_of(part)).flatten(2)
        drawn = ((draw // cells >= part[0]) & (draw // cells <= part[-1])).nonzero()[:, 0]
        image, cell = (
            (draw[drawn] // cells - part[0]).to(first.device),
            (draw[drawn] % cells).to(first.device),
        )
        sample[drawn.to(first.device)] = features[image, :, cell].float()
    return sample


def _nearest(x: Float[Tensor, "*b n c"], centres: Float[Tensor, "k c"]) -> Tensor:
    return (x @ centres.T - 0.5 * centres.square().sum(-1)).argmax(-1)


def _kmeans(sample: Float[Tensor, "n c"], count: int, generator: torch.Generator) -> Float[Tensor, "k c"]:
    """Lloyd's rounds from random samples; an empty cluster keeps its centre."""
    start = torch.randperm(len(sample), generator=generator, device=generator.device)[:count].to(
        sample.device
    )
    centres = sample[start].clone()
    for _ in range(KMEANS_ROUNDS):
        nearest = _nearest(sample, centres)
        sums = torch.zeros_like(centres).index_add(0, nearest, sample)
        sizes = torch.zeros(count, device=sample.device).index_add(0, nearest, torch.ones_like(sample[:, 0]))
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centres)
    return centres
