"""What goes into a joint adjustment and what comes out."""

from dataclasses import dataclass
from enum import StrEnum

from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.pnp.robust_loss import LossName


@dataclass(frozen=True, slots=True)
class BundleProblem:
    """Views, points and what the views saw of the points."""

    cam_from_world: Float[Tensor, "views 3 4"]
    """World to camera, ``[R | t]``."""
    points: Float[Tensor, "points 3"]
    """World coordinates."""
    camera: PinholeCamera
    """One camera, shared by all views."""
    view_index: Int[Tensor, " k"]
    """The view of each observation."""
    point_index: Int[Tensor, " k"]
    """The point of each observation."""
    pixels: Float[Tensor, "k 2"]
    """Where it was seen; an observation that is not finite does not count."""
    radial: Float[Tensor, " 2"] | None = None
    """``k1, k2`` of ``1 + k1 r² + k2 r⁴``, on normalised image coordinates; zero if not given."""
    weights: Float[Tensor, " k"] | None = None
    """Factor on each observation's cost; one if not given."""
    fixed_views: Bool[Tensor, " views"] | None = None
    """Views whose pose is held. Without any, the first observed view is held (see ``bundle_adjust``)."""


@dataclass(frozen=True, slots=True)
class BundleAdjustmentConfig:
    """What moves, how errors count, and when to stop."""

    max_iterations: int = 50
    """Steps tried, accepted or not."""
    loss: LossName = "huber"
    """Name in ``pnp.robust_loss``: an observation costs half the loss of its squared error."""
    loss_scale_px: float = 2.0
    """Where the robust loss leaves the square."""
    refine_poses: bool = True
    """Move the views that ``fixed_views`` does not hold."""
    refine_points: bool = True
    """Move the points."""
    refine_focal: bool = False
    """Move the focal length; the ratio of its two axes stays."""
    refine_principal_point: bool = False
    """Move the principal point."""
    refine_radial: bool = False
    """Move ``k1`` and ``k2``."""
    focal_prior_weight: float = 0.0
    """Adds half of this times ``ln(focal / initial focal)²`` to the cost, in px²."""
    initial_damping: float = 1e-4
    """Levenberg-Marquardt damping of the first step, relative to the diagonal of the normal equations."""
    cost_tolerance: float = 1e-7
    """Stop when an accepted step lowers the cost by less than this share."""
    step_tolerance: float = 1e-9
    """Stop when a step would lower the cost by less than this share even by its own model."""
    dense_views: int = 600
    """Up to this many moving views the reduced system is factorised; beyond, conjugate gradients."""
    cg_iterations: int = 200
    """Most conjugate-gradient iterations per step."""
    cg_tolerance: float = 1e-2
    """Conjugate gradients stop when the preconditioned residual has fallen to this share."""


class AdjustmentStatus(StrEnum):
    """How an adjustment ended."""

    CONVERGED = "the cost no longer falls"
    ITERATION_LIMIT = "the iteration limit was reached"
    STALLED = "no damping gave a step that lowers the cost"
    EMPTY = "there was nothing to adjust"


@dataclass(frozen=True, slots=True)
class BundleAdjustmentResult:
    """The refined estimate, with what remains at each observation."""

    cam_from_world: Float[Tensor, "views 3 4"]
    """World to camera."""
    points: Float[Tensor, "points 3"]
    """World coordinates."""
    camera: PinholeCamera
    """The shared camera."""
    radial: Float[Tensor, " 2"]
    """``k1, k2``."""
    cost_initial: float
    """Half the sum of weighted losses at the start, with the prior, in px²."""
    cost_final: float
    """The same at the end; never larger."""
    residuals_px: Float[Tensor, "k 2"]
    """Predicted minus observed pixel; without meaning where ``depth`` is not positive."""
    depth: Float[Tensor, " k"]
    """Depth of the point in its view."""
    iterations: int
    """Steps tried."""
    status: AdjustmentStatus
    """Why it stopped."""
