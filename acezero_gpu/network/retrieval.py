"""Which images look alike: one global descriptor per image, made from the encoder's own features."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

CENTRES = 32
KMEANS_ROUNDS = 8
TRAINING_CELLS = 16384
AT_ONCE = 16
"""Images whose features are looked at together."""


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
