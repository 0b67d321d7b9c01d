"""Refinement on inliers that are selected anew in every round, and a last one with a robust loss."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.pnp import LossName, RefinementConfig, refine_absolute_pose
from acezero_gpu.ransac.scoring import Correspondences, ScoreName, score_hypotheses, squared_errors_px

_ACCEPTED_SCORE_LOSS = 0.1
_GAUSSIAN_TAIL = 1.823
"""Ratio of the 90 % and the 50 % quantile of the length of a two-dimensional Gaussian error."""


def refine_on_inliers(
    data: Correspondences,
    cam_from_world: Float[Tensor, "batch m 3 4"],
    scores: Float[Tensor, "batch m"],
    *,
    max_error_px: float,
    score: ScoreName,
    rounds: int,
    iterations: int,
) -> tuple[Float[Tensor, "batch m 3 4"], Float[Tensor, "batch m"]]:
    """``rounds`` times: least squares on the points within the threshold of the current pose, then score.

    The best scored pose of each slot is kept, the initial one included, so that no score falls. The number
    of rounds is fixed. Differs from ACE0, which stops when the count no longer grows and returns the count
    of the set that was last fitted to instead of that of the final pose.
    """
    batch, m = scores.shape
    flat = data if m == 1 else data.repeated(m)
    points, pixels = flat.points_h[:, :3].transpose(1, 2), flat.pixels.transpose(1, 2)
    config = RefinementConfig(iterations=iterations)
    current = cam_from_world.flatten(0, 1)
    best, best_scores = cam_from_world, scores
    for _ in range(rounds):
        inliers = squared_errors_px(flat, current[:, None])[:, 0] < max_error_px**2
        refined = refine_absolute_pose(points, pixels, flat.camera, current, config, weights=inliers)
        current = refined.cam_from_world
        new = current.unflatten(0, (batch, m))
        new_scores = score_hypotheses(data, new, max_error_px, score)
        better = new_scores > best_scores
        best = torch.where(better[..., None, None], new, best)
        best_scores = torch.where(better, new_scores, best_scores)
    return best, best_scores


def polish(
    data: Correspondences,
    cam_from_world: Float[Tensor, "batch 3 4"],
    scores: Float[Tensor, " batch"],
    *,
    max_error_px: float,
    score: ScoreName,
    loss: LossName,
    scale_px: float | None,
    iterations: int,
) -> Float[Tensor, "batch 3 4"]:
    """One refinement on the inliers with a robust loss, whose scale may come from the errors themselves.

    Least squares weighs an error of nine pixels like nine of one; where errors have heavy tails, as those of
    predicted scene coordinates do, a robust loss is far more accurate. It does not maximise the score, so
    the result is taken unless the score falls by more than a tenth. Differs from ACE0, which has least
    squares only.
    """
    squared = squared_errors_px(data, cam_from_world[:, None])[:, 0]
    inliers = squared < max_error_px**2
    scale = robust_scale_px(squared, inliers) if scale_px is None else torch.full_like(scores, scale_px)
    refined = refine_absolute_pose(
        data.points_h[:, :3].transpose(1, 2),
        data.pixels.transpose(1, 2),
        data.camera,
        cam_from_world,
        RefinementConfig(iterations=iterations, loss=loss),
        weights=inliers,
        loss_scale_px=scale,
    ).cam_from_world
    new_scores = score_hypotheses(data, refined[:, None], max_error_px, score)[:, 0]
    accepted = new_scores > (1 - _ACCEPTED_SCORE_LOSS) * scores
    return torch.where(accepted[:, None, None], refined, cam_from_world)


def robust_scale_px(
    squared_px: Float[Tensor, "batch n"], inliers: Bool[Tensor, "batch n"]
) -> Float[Tensor, " batch"]:
    """Scale of a Cauchy loss for the errors of each image's inliers, in pixels.

    ``3 median (1.823 median / q90)²``, with the quantiles of the inliers' errors: for Gaussian errors, whose
    ratio ``q90 / median`` is 1.823, a scale so wide that least squares remains; the heavier the tail, the
    narrower. The factor and the power were chosen by the accuracy measured on Gaussian and log-normal errors.
    """
    ascending = torch.where(inliers, squared_px, torch.inf).sort(dim=-1).values
    count = inliers.sum(-1, keepdim=True)

    def quantile(share: float) -> Tensor:
        index = (count * share).long().clamp_max(squared_px.shape[-1] - 1)
        return ascending.gather(-1, index)[:, 0].sqrt()

    median, tail = quantile(0.5), quantile(0.9)
    smallest = 1e-3  # errors that vanish would give a scale of zero
    scale = 3 * median * (_GAUSSIAN_TAIL * median / tail.clamp_min(smallest)).square()
    return torch.where(scale.isfinite(), scale, 1.0).clamp_min(smallest)
