"""Refinement on inliers that are selected anew in every round, and a last one with a robust loss."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.pnp import LossName, RefinementConfig
from acezero_gpu.pnp.levenberg_marquardt import ReprojectionProblem, minimise_reprojection
from acezero_gpu.ransac.correspondences import Correspondences
from acezero_gpu.ransac.result import ACCEPTED_SCORE_LOSS
from acezero_gpu.ransac.scoring import ScoreName, score_hypotheses, squared_errors_px

_SCALE_POINTS = 1024
"""Errors that the scale is taken from: every k-th of more than these, for the sake of the sort."""
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
    compile: bool = False,
) -> tuple[Float[Tensor, "batch m 3 4"], Float[Tensor, "batch m"]]:
    """``rounds`` times: least squares on the points within the threshold of the current pose, then score.

    The best scored pose of each slot is kept, the initial one included, so that no score falls. The number
    of rounds is fixed. Differs from ACE0, which stops when the count no longer grows and returns the count
    of the set that was last fitted to instead of that of the final pose.
    """
    batch, m = scores.shape
    flat = data if m == 1 else data.repeated(m)
    config = RefinementConfig(iterations=iterations, compile=compile)
    current = cam_from_world.flatten(0, 1)
    best, best_scores = cam_from_world, scores
    for _ in range(rounds):
        inliers = squared_errors_px(flat, current[:, None], compile=compile)[:, 0] < max_error_px**2
        current = minimise_reprojection(_problem(flat, inliers), current, config).cam_from_world
        new = current.unflatten(0, (batch, m))
        new_scores = score_hypotheses(data, new, max_error_px, score, compile=compile)
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
    gate: float,
    score: ScoreName,
    loss: LossName,
    scale_px: float | None,
    rounds: int,
    iterations: int,
    compile: bool = False,
) -> Float[Tensor, "batch 3 4"]:
    """Refinement with a robust loss, whose scale may come from the errors themselves.

    Least squares weighs an error of nine pixels like nine of one; where errors have heavy tails, as those of
    predicted scene coordinates do, a robust loss is far more accurate. It also bears points that lie beyond
    the threshold, up to ``gate`` times it: to cut errors off at the threshold throws measurements away. It
    does not maximise the score, so the result is taken unless the score falls by more than a tenth. Differs
    from ACE0, which has least squares only.
    """
    pose = cam_from_world
    config = RefinementConfig(iterations=iterations, loss=loss, compile=compile)
    for _ in range(rounds):
        squared = squared_errors_px(data, pose[:, None], compile=compile)[:, 0]
        near = squared < (gate * max_error_px) ** 2
        scale = robust_scale_px(squared, near) if scale_px is None else torch.full_like(scores, scale_px)
        pose = minimise_reprojection(_problem(data, near), pose, config, scale).cam_from_world
    new_scores = score_hypotheses(data, pose[:, None], max_error_px, score, compile=compile)[:, 0]
    accepted = new_scores > (1 - ACCEPTED_SCORE_LOSS) * scores
    return torch.where(accepted[:, None, None], pose, cam_from_world)


def _problem(data: Correspondences, chosen: Bool[Tensor, "batch n"]) -> ReprojectionProblem:
    """The chosen correspondences by their weights."""
    if data.weights is None:
        weights = chosen.to(data.points_h.dtype)
    else:
        weights = torch.where(chosen, data.weights, 0)
    return ReprojectionProblem(data.points_h, data.pixels, weights, data.camera)


def robust_scale_px(
    squared_px: Float[Tensor, "batch n"], inliers: Bool[Tensor, "batch n"]
) -> Float[Tensor, " batch"]:
    """Scale of a Cauchy loss for the errors of each image's inliers, in pixels.

    ``3 median (1.823 median / q90)²``, with the quantiles of the inliers' errors: for Gaussian errors, whose
    ratio ``q90 / median`` is 1.823, a scale so wide that least squares remains; the heavier the tail, the
    narrower. The factor and the power were chosen by the accuracy measured on Gaussian and log-normal errors.
    """
    step = -(-squared_px.shape[-1] // _SCALE_POINTS)
    squared_px, inliers = squared_px[:, ::step], inliers[:, ::step]
    ascending = torch.where(inliers, squared_px, torch.inf).sort(dim=-1).values
    count = inliers.sum(-1, keepdim=True)

    def quantile(share: float) -> Tensor:
        index = (count * share).long().clamp_max(squared_px.shape[-1] - 1)
        return ascending.gather(-1, index)[:, 0].sqrt()

    median, tail = quantile(0.5), quantile(0.9)
    smallest = 1e-3  # errors that vanish would give a scale of zero
    scale = 3 * median * (_GAUSSIAN_TAIL * median / tail.clamp_min(smallest)).square()
    return torch.where(scale.isfinite(), scale, 1.0).clamp_min(smallest)
