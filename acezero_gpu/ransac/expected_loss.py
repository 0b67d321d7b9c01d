"""RANSAC that can be trained through: a differentiable distribution over the poses of an image (DSAC*)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, camera_centres, reproject, rotation_angle_deg
from acezero_gpu.geometry.reprojection import MIN_DEPTH
from acezero_gpu.pnp import PoseStatus, RefinementConfig, refine_absolute_pose, refine_implicit
from acezero_gpu.ransac.correspondences import Correspondences, checked_inputs, make_correspondences
from acezero_gpu.ransac.hypotheses import Hypotheses, verified_hypotheses
from acezero_gpu.ransac.sampling import ImageStreams, distinct_ranks, usable_first
from acezero_gpu.runtime import random_stream

_LEAST_POINTS = 4
"""Three for P3P and one to choose among its roots."""


@dataclass(frozen=True, slots=True)
class PoseDistributionConfig:
    """How hypotheses are drawn, refined and weighed."""

    hypotheses: int = 64
    """Poses per image; about 30 numbers are kept for each of ``images * hypotheses * points``."""
    attempts: int = 16
    """Samples drawn per hypothesis; the first whose four points reproject within the threshold is taken."""
    max_error_px: float = 10.0
    """A point is an inlier if its reprojection error is below this, in the unit of the given pixels."""
    alpha: float = 100.0
    """Factor on the soft inlier share (0 to 1) in the softmax: at 100 a hypothesis that explains one per cent
    more of the points is e times as likely. Small makes all equally likely, large leaves only the best."""
    refinement_rounds: int = 2
    """Rounds of refinement of each hypothesis; inliers are selected anew in each."""
    refinement_iterations: int = 10
    """Levenberg-Marquardt steps per round; the last round must arrive at its minimum."""

    def __post_init__(self) -> None:
        for name in ("hypotheses", "attempts", "refinement_rounds", "refinement_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"PoseDistributionConfig.{name} must be at least 1, got {getattr(self, name)}."
                )
        if not (self.max_error_px > 0 and self.alpha > 0):
            raise ValueError(
                f"PoseDistributionConfig.max_error_px and alpha must be positive, got {self.max_error_px} and "
                f"{self.alpha}."
            )


@dataclass(frozen=True, slots=True)
class PoseDistribution:
    """Poses of each image and how likely each is; both carry gradients."""

    cam_from_world: Float[Tensor, "batch m 3 4"]
    """Refined hypotheses; the identity, without gradient, where not ``valid``."""
    log_probabilities: Float[Tensor, "batch m"]
    """Their exponentials sum to one over the valid hypotheses; minus infinity where not ``valid``."""
    valid: Bool[Tensor, "batch m"]
    """The sample had a solution and its refinement arrived at a minimum."""
    status: Int64[Tensor, " batch"]
    """``OK``, ``NO_HYPOTHESIS`` or ``TOO_FEW_POINTS``, of ``PoseStatus``."""

    def expected(
        self, loss: Float[Tensor, "batch m"], *, without_hypothesis: float = 0.0
    ) -> Float[Tensor, " batch"]:
        """``sum_j p_j loss_j``, the quantity to be minimised.

        Its gradient teaches twice: along the poses, and along the probabilities towards hypotheses of low
        loss. Invalid hypotheses count nothing, whatever their loss holds; an image that has no other gets the
        constant ``without_hypothesis``, which has no gradient.
        """
        expected = (self.log_probabilities.exp() * torch.where(self.valid, loss, 0.0)).sum(-1)
        return torch.where(self.valid.any(-1), expected, without_hypothesis)

    def entropy(self) -> Float[Tensor, " batch"]:
        """In nats: 0 if one hypothesis has all the probability, ``log m`` if all have the same. Tells whether
        ``alpha`` suits the data."""
        surprise = torch.where(self.valid, -self.log_probabilities, 0.0)
        return (surprise * self.log_probabilities.exp()).sum(-1)

    def most_likely(self) -> Float[Tensor, "batch 3 4"]:
        """The pose of the largest probability, as RANSAC would choose it."""
        index = self.log_probabilities.argmax(-1)[:, None, None, None]
        return self.cam_from_world.gather(1, index.expand(-1, 1, 3, 4))[:, 0]


def sample_pose_distribution(
    points: Tensor,
    pixels: Tensor,
    camera: PinholeCamera,
    config: PoseDistributionConfig | None = None,
    *,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> PoseDistribution:
    """Pose hypotheses of each image and their probabilities, differentiable by points, pixels and camera.

    ``points`` (batch, n, 3) in world units are seen at ``pixels``, (n, 2) or (batch, n, 2); the camera is
    shared or batched; ``mask`` (batch, n) tells which correspondences may be used. Points that are not finite
    are left out. With the errors ``e_i`` of a refined hypothesis ``h_j`` and the threshold T,

        ``p_j = softmax_j(alpha s(h_j))``,  ``s(h) = mean_i sigmoid(5 (T - e_i(h)) / T)``.

    Minimal samples, which are drawn and solved as ``estimate_absolute_pose`` does, start the refinement and are
    constants; so is the choice of inliers. The refined pose depends on the inputs as the minimum of its
    inliers' squared errors (``refine_implicit``). An image that fails has a ``status``, no gradient, and no
    effect on the others. Draws come from ``generator``; without one, every call draws the same.

    Reference: Brachmann et al., DSAC, CVPR 2017; Brachmann and Rother, DSAC*, TPAMI 2021. Differs from DSAC*:
    the refined pose is scored instead of the minimal one, so that the minimal solver needs no derivative (it
    is large for samples that are nearly degenerate; DSAC* takes central differences and drops large ones); the
    derivative of the refinement is exact; points behind the camera score nothing. ACE0 trains by reprojection
    errors only.
    """
    config = config or PoseDistributionConfig()
    points, pixels, focal, principal, mask = checked_inputs(points, pixels, camera, mask)
    generator = generator or random_stream(0, "pose distribution")
    with torch.no_grad():
        data = make_correspondences(points, pixels, PinholeCamera(focal, principal), mask)
        usable, enough = data.usable, data.usable.sum(-1) >= _LEAST_POINTS
        streams = ImageStreams.draw(len(points), generator, points.device)
        hypotheses = _draw_hypotheses(data, config, streams)
    # Whatever would send back 0 times infinity is replaced on the way in.
    points = torch.where(usable[..., None], points, 0.0)
    pixels = torch.where(usable[..., None], pixels, 0.0)
    focal = torch.where(enough[:, None], focal, 1.0)
    principal = torch.where(enough[:, None], principal, 0.0)
    views = _Views(
        points[:, None], pixels[:, None], PinholeCamera(focal[:, None], principal[:, None]), usable[:, None]
    )
    pose, valid = _refined(views, hypotheses, config)
    share = _soft_share(views, pose, config.max_error_px)
    log_probabilities = _masked_log_softmax(config.alpha * share, valid)
    status = torch.where(valid.any(-1), int(PoseStatus.OK), int(PoseStatus.NO_HYPOTHESIS))
    status = torch.where(enough, status, int(PoseStatus.TOO_FEW_POINTS))
    return PoseDistribution(pose, log_probabilities, valid, status)


def pose_loss(
    estimate: Float[Tensor, "*#batch 3 4"],
    truth: Float[Tensor, "*#batch 3 4"],
    *,
    deg_per_unit: float = 100.0,
    clamp: float = 100.0,
) -> Float[Tensor, "*batch"]:
    """Angle between the rotations in degrees plus ``deg_per_unit`` times the distance of the camera centres.

    In a world of metres the default weighs one centimetre like one degree. Losses ``l`` above ``clamp`` become
    ``sqrt(clamp l)``, so that hopeless hypotheses do not drown the others. At equal poses the gradient is
    zero, and it is finite everywhere. Reference: Brachmann and Rother, DSAC*, TPAMI 2021, with its weights.
    """
    angle = rotation_angle_deg(estimate[..., :3], truth[..., :3])
    distance = (camera_centres(estimate) - camera_centres(truth)).norm(dim=-1)
    loss = angle + deg_per_unit * distance
    return torch.where(loss > clamp, (clamp * loss.clamp_min(clamp)).sqrt(), loss)


@dataclass(frozen=True, slots=True)
class _Views:
    """Correspondences with a dimension for the hypotheses; unusable ones are harmless."""

    points: Float[Tensor, "batch 1 n 3"]
    pixels: Float[Tensor, "batch 1 n 2"]
    camera: PinholeCamera
    usable: Bool[Tensor, "batch 1 n"]

    def errors_px(
        self, pose: Float[Tensor, "batch m 3 4"]
    ) -> tuple[Float[Tensor, "batch m n"], Bool[Tensor, "batch m n"]]:
        """Reprojection errors, and where they mean something: usable and in front of the camera."""
        view = reproject(self.points.expand(-1, pose.shape[1], -1, -1), pose, self.camera)
        return (view.pixels - self.pixels).norm(dim=-1), self.usable & (view.depth > MIN_DEPTH)


def _draw_hypotheses(
    data: Correspondences, config: PoseDistributionConfig, streams: ImageStreams
) -> Hypotheses:
    batch, n = data.usable.shape
    samples = config.hypotheses * config.attempts
    count = data.usable.sum(-1)
    if n == 0:
        pose = torch.eye(3, 4, dtype=data.points_h.dtype, device=count.device)
        return Hypotheses(
            pose.expand(batch, config.hypotheses, 3, 4), data.usable.new_zeros(batch, config.hypotheses)
        )
    uniform = streams.uniform(0, samples * 4)
    ranks = distinct_ranks(uniform.unflatten(1, (samples, 4)), count[:, None])
    indices = usable_first(data.usable).gather(1, ranks.flatten(1))
    indices = indices.view(batch, config.hypotheses, config.attempts, 4)
    hypotheses = verified_hypotheses(data, indices, config.max_error_px)
    return replace(hypotheses, valid=hypotheses.valid & (count >= _LEAST_POINTS)[:, None])


def _refined(
    views: _Views, hypotheses: Hypotheses, config: PoseDistributionConfig
) -> tuple[Float[Tensor, "batch m 3 4"], Bool[Tensor, "batch m"]]:
    """Least squares on the inliers, selected anew each time; only the last round has a derivative."""
    identity = torch.eye(3, 4, dtype=views.points.dtype, device=views.points.device)
    pose = torch.where(hypotheses.valid[..., None, None], hypotheses.cam_from_world, identity)
    steps = RefinementConfig(iterations=config.refinement_iterations)
    for last in [False] * (config.refinement_rounds - 1) + [True]:
        with torch.no_grad():
            errors, counted = views.errors_px(pose)
            inliers = counted & (errors < config.max_error_px) & hypotheses.valid[..., None]
        if last:
            refined = refine_implicit(views.points, views.pixels, views.camera, pose, steps, weights=inliers)
        else:
            with torch.no_grad():
                refined = refine_absolute_pose(
                    views.points, views.pixels, views.camera, pose, steps, weights=inliers
                )
        pose = refined.cam_from_world
    valid = hypotheses.valid & (refined.status == int(PoseStatus.OK))
    return torch.where(valid[..., None, None], pose, identity), valid


def _soft_share(
    views: _Views, pose: Float[Tensor, "batch m 3 4"], max_error_px: float
) -> Float[Tensor, "batch m"]:
    """``score_hypotheses`` with the soft score, by the number of usable points, and differentiable."""
    errors, counted = views.errors_px(pose)
    soft = torch.where(counted, (5 - 5 / max_error_px * errors).sigmoid(), 0.0)
    return soft.sum(-1) / views.usable.sum(-1).clamp_min(1)


def _masked_log_softmax(
    logits: Float[Tensor, "batch m"], valid: Bool[Tensor, "batch m"]
) -> Float[Tensor, "batch m"]:
    """Over the valid entries; minus infinity elsewhere, and in rows that have none."""
    some = valid.any(-1, keepdim=True)
    masked = torch.where(valid, logits, torch.where(some, -torch.inf, 0.0))
    return torch.where(valid, masked.log_softmax(-1), -torch.inf)
