"""Refinement on inliers that are selected anew in every round."""

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.pnp import RefinementConfig, refine_absolute_pose
from acezero_gpu.ransac.scoring import Correspondences, ScoreName, score_hypotheses, squared_errors_px


def refine_on_inliers(
    data: Correspondences,
    cam_from_world: Float[Tensor, "batch m 3 4"],
    scores: Float[Tensor, "batch m"],
    *,
    max_error_px: float,
    score: ScoreName,
    rounds: int,
    refinement: RefinementConfig,
) -> tuple[Float[Tensor, "batch m 3 4"], Float[Tensor, "batch m"]]:
    """``rounds`` times: least squares on the points within the threshold of the current pose, then score.

    The best scored pose of each slot is kept, the initial one included, so that no score falls. The number
    of rounds is fixed. Differs from ACE0, which stops when the count no longer grows and returns the count
    of the set that was last fitted to instead of that of the final pose.
    """
    batch, m = scores.shape
    flat = data if m == 1 else data.repeated(m)
    points, pixels = flat.points_h[:, :3].transpose(1, 2), flat.pixels.transpose(1, 2)
    current = cam_from_world.flatten(0, 1)
    best, best_scores = cam_from_world, scores
    for _ in range(rounds):
        squared = squared_errors_px(flat, current[:, None])[:, 0]
        inliers = squared < max_error_px**2
        current = refine_absolute_pose(
            points, pixels, flat.camera, current, refinement, weights=inliers
        ).cam_from_world
        new = current.unflatten(0, (batch, m))
        new_scores = score_hypotheses(data, new, max_error_px, score)
        better = new_scores > best_scores
        best = torch.where(better[..., None, None], new, best)
        best_scores = torch.where(better, new_scores, best_scores)
    return best, best_scores
