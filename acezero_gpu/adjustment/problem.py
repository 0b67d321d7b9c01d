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
    """Where it was seen; one that is not finite does not count, nor does one by a pose or of a point that is not."""
    radial: Float[Tensor, " 2"] | None = None
    """``k1, k2`` of ``1 + k1 r² + k2 r⁴``, on normalised image coordinates; zero if not given."""
    weights: Float[Tensor, " k"] | None = None
    """Factor on each observation's cost; one if not given. Without effect unless finite and positive."""
    fixed_views: Bool[Tensor, " views"] | None = None
    """Views whose pose is held. Parts of the graph without any hold their first view (see ``bundle_adjust``)."""


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
    point_steps: int = 3
    """After each step every point is moved on by itself so many times: cheap, and fewer steps remain to be done."""
    initial_damping: float = 1e-4
    """Levenberg-Marquardt damping of the first step, relative to the diagonal of the normal equations."""
    cost_tolerance: float = 1e-7
    """Stop when an accepted step lowers the cost by less than this share."""
    step_tolerance: float = 1e-9
    """Stop when a step would lower the cost by less than this share even by its own model."""
    dense_views: int = 350
    """Up to this many moving views the reduced system is factorised; beyond, conjugate gradients."""
    cg_iterations: int = 200
    """Most conjugate-gradient iterations per step."""
    cg_tolerance: float = 0.1
    """Conjugate gradients, preconditioned by views and by groups of views, stop when the residual has fallen to this
    share in the preconditioner's norm."""


class AdjustmentStatus(StrEnum):
    """How an adjustment ended."""

    CONVERGED = "the cost no longer falls"
    ITERATION_LIMIT = "the iteration limit was reached"
    STALLED = "no damping gave a step that lowers the cost"
    SINGULAR = "the reduced system cannot be solved"
    EMPTY = "there was nothing to adjust"

    @property
    def explanation(self) -> str:
        """One sentence for a person: what happened, and what it means for the result."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    AdjustmentStatus.CONVERGED: "The estimate is at a minimum of the cost: further steps would lower it by less than "
    "the tolerance.",
    AdjustmentStatus.ITERATION_LIMIT: "The estimate is the best of max_iterations steps, and more of them would "
    "lower the cost further.",
    AdjustmentStatus.STALLED: "Steps of any length raised the cost and were taken back: the estimate is the last one "
    "before them, at a minimum as exact as rounding allows or at a kink of the cost.",
    AdjustmentStatus.SINGULAR: "The reduced system of poses and camera was singular or not finite even with the "
    "largest damping, so the estimate is the last one before: something in it is not determined by the "
    "observations, or weights are beyond what numbers hold.",
    AdjustmentStatus.EMPTY: "Nothing that may move is seen by observations that count, so everything came back as it "
    "was given.",
}


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
    """Why it stopped; ``status.explanation`` says it in a sentence."""
    component_of_view: Int[Tensor, " views"]
    """Views with the same number hang together by points; each such part has a frame and a scale of its own, so
    nothing is known of one part against another. Counted from 0; -1 for views in which no observation counts."""
    triangulated: Bool[Tensor, " points"]
    """Whether at least two views see the point with parallax. The others kept their distance: a point that one
    view sees stands still and does not count, and points without parallax count as directions only."""

    @property
    def num_components(self) -> int:
        """How many parts the views fall into; views without observations are in none."""
        return int(self.component_of_view.max()) + 1 if len(self.component_of_view) else 0
