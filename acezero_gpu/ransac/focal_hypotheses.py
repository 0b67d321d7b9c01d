"""Pose hypotheses for a sweep of focal lengths: every minimal sample is solved at each of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.pnp import p3p
from acezero_gpu.ransac.correspondences import Correspondences
from acezero_gpu.ransac.scoring import ScoreName, score_hypotheses


@dataclass(frozen=True, slots=True)
class FocalHypotheses:
    """Poses with their focal lengths, to be scored on correspondences whose own focal length is one and whose
    pixels are relative to the principal point."""

    cam_from_world: Float[Tensor, "batch m 3 4"]
    """``[R | t]``; finite also where not valid."""
    focal: Float[Tensor, "batch m"]
    """In pixels."""
    score: Float[Tensor, "batch m"]
    """Negative where not valid."""

    @property
    def projections(self) -> Float[Tensor, "batch m 3 4"]:
        """``diag(f, f, 1) [R | t]``."""
        rows = torch.stack([self.focal, self.focal, torch.ones_like(self.focal)], dim=-1)
        return self.cam_from_world * rows[..., None]

    def best(self, count: int) -> "FocalHypotheses":
        """The best scored ones of each image, best first."""
        score, index = self.score.topk(min(count, self.score.shape[1]), dim=1)
        pose = self.cam_from_world.gather(1, index[..., None, None].expand(-1, -1, 3, 4))
        return FocalHypotheses(pose, self.focal.gather(1, index), score)

    def scored(self, data: Correspondences, max_error_px: float, score: ScoreName) -> "FocalHypotheses":
        """Scored anew; what was not valid stays so."""
        scores = score_hypotheses(data, self.projections, max_error_px, score)
        return FocalHypotheses(self.cam_from_world, self.focal, torch.where(self.score >= 0, scores, -1))

    def replaced(self, where: Bool[Tensor, "batch m"], other: "FocalHypotheses") -> "FocalHypotheses":
        """Those of ``other`` where it says so."""
        return FocalHypotheses(
            torch.where(where[..., None, None], other.cam_from_world, self.cam_from_world),
            torch.where(where, other.focal, self.focal),
            torch.where(where, other.score, self.score),
        )


def sweep_hypotheses(
    data: Correspondences, samples: Int64[Tensor, "batch samples 3"], focals: Float[Tensor, "batch focals"]
) -> FocalHypotheses:
    """Every root of every sample at every focal length, four slots for each; valid ones have the score 0.

    A root reprojects its own three points exactly, whatever the focal length: other points must tell.
    """
    _, count, _ = samples.shape
    shape = (*focals.shape, count, 3)
    sample = data.narrow(samples.flatten(1))
    offsets = sample.pixels.transpose(1, 2).unflatten(1, (1, count, 3)).expand(*shape, 2)
    points = sample.points_h[:, :3].transpose(1, 2).unflatten(1, (1, count, 3)).expand(*shape, 3)
    rays = torch.cat([offsets, focals[..., None, None, None].expand(*shape, 1)], dim=-1)
    solutions = p3p(torch.nn.functional.normalize(rays, dim=-1), points)
    focal = focals.repeat_interleave(4 * count, 1)
    score = torch.where(solutions.valid.flatten(1), 0, -1).to(focal.dtype)
    return FocalHypotheses(solutions.cam_from_world.flatten(1, 3), focal, score)
