"""The similarity between an estimated and a true trajectory, found in spite of wrong cameras."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.evaluation.similarity_ransac import (
    SimilarityProblem,
    best_samples,
    draw_samples,
    least_median,
    refine,
    score_similarities,
)
from acezero_gpu.geometry import Similarity, camera_centres, nearest_rotation, rotation_angle_deg


class AlignmentStatus(Enum):
    """How far an alignment is to be trusted."""

    ALIGNED = "aligned on the camera centres"
    ALIGNED_WITH_ORIENTATIONS = "aligned on the camera centres and orientations together"
    NO_CONSENSUS = (
        "too few cameras agree on any alignment: least median of the centres' errors, rough at best"
    )
    COINCIDENT = "camera centres coincide: only a rotation is determined, positions cannot be compared"
    TOO_FEW = "fewer than two usable cameras: nothing to align"

    @property
    def has_positions(self) -> bool:
        """Whether scale and translation exist."""
        return self not in (AlignmentStatus.COINCIDENT, AlignmentStatus.TOO_FEW)

    @property
    def trustworthy(self) -> bool:
        """Whether errors after this alignment mean what they say."""
        return self in (AlignmentStatus.ALIGNED, AlignmentStatus.ALIGNED_WITH_ORIENTATIONS)


@dataclass(frozen=True, slots=True)
class AlignmentConfig:
    """When a camera supports an alignment, and how long to search for one."""

    truth_unit_m: float | None = None
    """Metres per unit of the true poses; None if their unit is arbitrary."""
    max_position_error_m: float = 0.05
    """An inlier's centre ends nearer than this to the true one, in metres; used if the unit is known."""
    max_position_error_share: float = 0.02
    """The same as a share of the true trajectory's extent; used if the unit is not known."""
    max_rotation_error_deg: float = 5.0
    """An inlier's rotation error after alignment is below this."""
    samples: int = 10_000
    """Three-camera samples that are scored; every triple is, once, where there are no more than this many."""
    refined_samples: int = 12
    """The best samples that are refined."""
    refinement_rounds: int = 8
    """Least-squares fits on the inliers of the previous fit, for each refined sample."""
    min_inlier_share: float = 0.1
    """Fewer inliers than this share of the usable cameras (or than three) are no consensus."""
    orientations: Literal["on_lines", "always"] = "on_lines"
    """When cameras' orientations take part in the fit: where the true centres leave a line by less than the
    inlier threshold on positions, or in every case (steadier for few cameras, less comparable to others)."""
    with_scale: bool = True
    """False keeps the estimate's scale: rotation and translation alone are fitted."""

    def position_tolerance(self, extent: float) -> float:
        """The inlier threshold on positions, in units of the truth."""
        if self.truth_unit_m is None:
            return self.max_position_error_share * extent
        return self.max_position_error_m / self.truth_unit_m


@dataclass(frozen=True, slots=True)
class TrajectoryAlignment:
    """``truth = similarity(estimate)``; scale and translation are NaN unless ``status.has_positions``."""

    similarity: Similarity
    """World of the estimate to world of the truth, float64."""
    inliers: Bool[Tensor, " n"]
    """Cameras within both thresholds after alignment."""
    status: AlignmentStatus
    """Which data the alignment rests on, or why there is none."""
    position_tolerance: float
    """The inlier threshold that was applied to positions, in units of the truth."""
    extent: float
    """``trajectory_extent`` of the true cameras."""


def trajectory_extent(centres: Float[Tensor, "n 3"]) -> float:
    """Diameter of the trajectory: twice the largest distance of a centre from their mean (0 for none)."""
    if centres.shape[0] == 0:
        return 0.0
    return 2.0 * float((centres - centres.mean(0)).norm(dim=-1).max())


def align_trajectory(
    estimate: Float[Tensor, "n 3 4"],
    truth: Float[Tensor, "n 3 4"],
    usable: Bool[Tensor, " n"] | None = None,
    config: AlignmentConfig = AlignmentConfig(),
    generator: torch.Generator | None = None,
) -> TrajectoryAlignment:
    """Similarity that carries most estimated cameras (``cam_from_world``) onto the true ones.

    ``g_i = s R c_i + t`` for the centres and ``R_true_iᵀ R_est_i = R`` for the orientations. Samples of
    three cameras are aligned on their centres (Umeyama, PAMI 1991), scored by the truncated squared position
    error with cameras of a wrong orientation counted in full, and the best are refitted on their inliers.
    Where the true centres leave a line by less than the tolerance, they do not fix the rotation about it;
    orientations then enter the fit, each weighted by its tolerance.

    Cameras that are not ``usable`` or not finite take no part and are never inliers. What cannot be
    determined is NaN and named by ``status``; nothing is raised for bad poses.
    Differs from ACE0: the threshold is in units of the truth, and lines of cameras are aligned too.
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    estimate, truth = estimate.double(), truth.double()
    finite_truth = truth.isfinite().flatten(1).all(-1)
    extent = trajectory_extent(camera_centres(truth[finite_truth]))
    tolerance = config.position_tolerance(extent)
    used = finite_truth & estimate.isfinite().flatten(1).all(-1)
    used = used if usable is None else used & usable.to(used.device)
    problem = _problem(estimate[used], truth[used], tolerance, config)

    similarity, status = _solve(problem, config, generator)
    inliers = torch.zeros_like(used)
    if status.has_positions:
        inliers[used] = score_similarities(problem, similarity[None]).inliers[0]
    elif status is AlignmentStatus.COINCIDENT:
        angle = rotation_angle_deg(similarity.rotation, problem.rotation)
        inliers[used] = angle < config.max_rotation_error_deg
    return TrajectoryAlignment(similarity, inliers, status, tolerance, extent)


def _problem(
    estimate: Float[Tensor, "m 3 4"], truth: Float[Tensor, "m 3 4"], tolerance: float, config: AlignmentConfig
) -> SimilarityProblem:
    target = camera_centres(truth)
    return SimilarityProblem(
        source=camera_centres(estimate),
        target=target,
        rotation=truth[..., :3].transpose(-1, -2) @ estimate[..., :3],
        tolerance=max(tolerance, 1e-12),  # it divides; 0 comes from a trajectory without extent
        rotation_tolerance_deg=config.max_rotation_error_deg,
        with_scale=config.with_scale,
        use_orientations=config.orientations == "always" or _distance_from_line(target) < tolerance,
    )


def _distance_from_line(centres: Float[Tensor, "m 3"]) -> float:
    """Root mean square distance of the centres from the line that fits them best."""
    if centres.shape[0] < 3:
        return 0.0
    singular = torch.linalg.svdvals(centres - centres.mean(0))
    return float(singular[1:].norm()) / math.sqrt(centres.shape[0])


def _coincide(centres: Float[Tensor, "m 3"]) -> bool:
    return trajectory_extent(centres) <= 1e-9 * float(centres.abs().max())


def _solve(
    problem: SimilarityProblem, config: AlignmentConfig, generator: torch.Generator
) -> tuple[Similarity, AlignmentStatus]:
    usable = problem.source.shape[0]
    if usable < 2:
        return _undetermined(problem.source.new_full((3, 3), math.nan)), AlignmentStatus.TOO_FEW
    if config.with_scale and (_coincide(problem.source) or _coincide(problem.target)):
        return _undetermined(_consensus_rotation(problem)), AlignmentStatus.COINCIDENT

    samples = draw_samples(usable, min(3, usable), config.samples, generator).to(problem.source.device)
    best = refine(problem, best_samples(problem, samples, config.refined_samples), config.refinement_rounds)
    count = best.inliers.sum(-1)
    leader = int(best.cost.argmin())
    if int(count[leader]) < max(min(3, usable), math.ceil(config.min_inlier_share * usable)):
        return least_median(problem, samples), AlignmentStatus.NO_CONSENSUS
    status = (
        AlignmentStatus.ALIGNED_WITH_ORIENTATIONS if problem.use_orientations else AlignmentStatus.ALIGNED
    )
    return best.similarity[leader], status


def _consensus_rotation(problem: SimilarityProblem) -> Float[Tensor, "3 3"]:
    """Mean of the cameras' rotations that lie within the tolerance of the most central one."""
    flat = problem.rotation.flatten(1)
    centre = problem.rotation[(flat @ flat.T).median(-1).values.argmax()]
    near = rotation_angle_deg(centre, problem.rotation) < problem.rotation_tolerance_deg
    return nearest_rotation(problem.rotation[near].mean(0))


def _undetermined(rotation: Float[Tensor, "3 3"]) -> Similarity:
    return Similarity(rotation.new_tensor(math.nan), rotation, rotation.new_full((3,), math.nan))
