"""Which images look alike: one global descriptor per image, made from the encoder's own features."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.runtime import chunk_ranges

CENTRES = 32
KMEANS_ROUNDS = 8
TRAINING_CELLS = 16384


def global_descriptors(
    features: Float[Tensor, "n c rows cols"], generator: torch.Generator
) -> Float[Tensor, "n d"]:
    """VLAD (Jégou et al., CVPR 2010) over the cells, with intra- and power normalisation; unit norm.

    The vocabulary is learned from the set itself, so no download is needed; the dot product of two descriptors is
    their similarity. Cost is linear in the number of images.
    """
    images, _, rows, columns = features.shape
    cells = rows * columns
    count = min(TRAINING_CELLS, images * cells)
    draw = torch.randint(images * cells, (count,), generator=generator, device=generator.device).to(
        features.device
    )
    flat = features.flatten(2)
    sample = flat[draw // cells, :, draw % cells].float()
    centres = _kmeans(sample, min(CENTRES, count), generator)
    parts = []
    for part in chunk_ranges(images, 16):
        x = flat[part].float().transpose(1, 2)
        nearest = _nearest(x, centres)
        assigned = F.one_hot(nearest, len(centres)).to(x.dtype)
        sums = assigned.transpose(1, 2) @ x - assigned.sum(1)[..., None] * centres
        sums = F.normalize(sums, dim=-1)
        parts.append(F.normalize(sums.flatten(1).sign() * sums.flatten(1).abs().sqrt(), dim=-1))
    return torch.cat(parts)


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
