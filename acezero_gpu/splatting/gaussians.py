"""The Gaussians that a training starts from: one per point of a cloud."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from acezero_gpu.runtime import chunk_ranges

SH_DC = 0.28209479177387814
"""The constant spherical harmonic, ``1 / (2 √π)``; a colour is 0.5 plus this times its first coefficient."""
NEIGHBOURS = 3
"""A Gaussian is as wide as these are far away, on average."""
ROWS = 2048
"""Points whose distances to all others are held at once."""


def initial_gaussians(
    points: Float[Tensor, "n 3"],
    colours: UInt8[Tensor, "n 3"],
    *,
    most: int,
    sh_degree: int,
    opacity: float,
    generator: torch.Generator,
) -> ParameterDict:
    """Round Gaussians at the points, of the points' colours, named and scaled as gsplat's strategies expect.

    ``means (n, 3)``, ``scales (n, 3)`` as logarithms, ``quats (n, 4)``, ``opacities (n,)`` as logits, ``sh0 (n, 1, 3)``
    and ``shN (n, k, 3)``. Of more than ``most`` points a random choice is taken. ``ValueError`` for fewer than
    ``NEIGHBOURS + 1`` points, and where they are all the same.
    """
    points, colours = points.float(), colours.to(points.device)
    if len(points) > most:
        chosen = torch.randperm(len(points), generator=generator)[:most].to(points.device)
        points, colours = points[chosen], colours[chosen]
    if len(points) <= NEIGHBOURS:
        raise ValueError(f"{len(points)} points are too few to start from; {NEIGHBOURS + 1} are needed.")
    width = _neighbour_distance(points)
    if not bool((width > 0).any()):
        raise ValueError("All points to start from are the same.")
    width = width.clamp_min(1e-3 * float(width[width > 0].median()))
    quats = torch.zeros(len(points), 4, device=points.device)
    quats[:, 0] = 1.0
    opacities = torch.full((len(points),), opacity, device=points.device).logit()
    first = (colours.float() / 255 - 0.5) / SH_DC
    others = torch.zeros(len(points), (sh_degree + 1) ** 2 - 1, 3, device=points.device)
    values = {
        "means": points.clone(),
        "scales": width.log()[:, None].repeat(1, 3),
        "quats": quats,
        "opacities": opacities,
        "sh0": first[:, None],
        "shN": others,
    }
    return ParameterDict({name: Parameter(value) for name, value in values.items()})


def _neighbour_distance(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Root mean square distance to the nearest other points."""
    found = torch.empty_like(points[:, 0])
    for chunk in chunk_ranges(len(points), ROWS):
        # By products of matrices, distances far from the origin would be noise.
        apart = torch.cdist(points[chunk], points, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = apart.topk(NEIGHBOURS + 1, largest=False).values
        found[chunk] = nearest[:, 1:].square().mean(1).sqrt()
    return found
