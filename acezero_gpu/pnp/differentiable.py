"""Pose refinement that passes gradients on to its inputs: points, pixels, camera, weights and loss scale.

Two ways lead there. The implicit gradient asks how the minimum moves when the inputs do; it costs one
evaluation, whatever the number of steps. The unrolled gradient differentiates the steps themselves; its memory
grows with their number, it also reaches the initial pose, and it needs no minimum to have been reached.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from acezero_gpu.geometry import PinholeCamera, compose, hat, orthonormalise
from acezero_gpu.pnp.levenberg_marquardt import (
    RefinedPose,
    RefinementConfig,
    refine_absolute_pose,
    small_motion,
)
from acezero_gpu.pnp.pose_cost import (
    PoseProblem,
    gauss_newton_matrix,
    half_gradient,
    hessian,
    make_pose_problem,
    pose_residuals,
    robust_cost,
    rounding_cost,
)
from acezero_gpu.pnp.status import PoseStatus

GradientName = Literal["implicit", "unrolled"]

CONVERGED_SHARE = 0.01
"""A pose counts as a minimum if a Newton step from it would move the image points by less than this share of
their errors (both root mean square, robustly weighted)."""
_ROUNDINGS = 10.0
"""Motions below this many roundings of a projection count as none, however small the errors are."""
_LEAST_PIVOT = 100.0
"""A matrix counts as positive definite if no pivot of it, scaled to a unit diagonal, is below this many
roundings."""


def refine_implicit(
    points: Tensor,
    pixels: Tensor,
    camera: PinholeCamera,
    initial: Tensor,
    config: RefinementConfig | None = None,
    *,
    weights: Tensor | None = None,
    loss_scale_px: Tensor | None = None,
) -> RefinedPose:
    """``refine_absolute_pose`` with the derivative of its minimum by the inputs.

    Arguments and values are those of ``refine_absolute_pose``, to the last bit: ``points`` (..., n, 3) in
    world units, ``pixels`` (..., n, 2), ``initial`` (..., 3, 4), ``weights`` (..., n), each broadcast to the
    batch of ``initial``. At a minimum the gradient ``F(pose, inputs)`` of the cost vanishes, and so

        ``d delta / d inputs = -H⁻¹ dF / d inputs``

    for the step ``delta`` of the pose in the camera frame and the exact Hessian ``H`` of the robust cost (that
    of Gauss-Newton would be wrong by the size of the residuals). It is formed as one Newton step whose value
    is subtracted again, for which about 20 numbers per correspondence are kept.

    ``cam_from_world`` and ``cost`` carry gradients of first order (unroll for higher ones); ``normal_matrix``
    is a constant, and ``initial`` gets no gradient. The inliers of ``truncated`` are held fixed.

    The theorem needs a minimum. Where the gradient has not vanished (``CONVERGED_SHARE``) or ``H`` is not
    positive definite, the status is ``NOT_CONVERGED``; the pose is still returned. There, and where the
    status is ``NOT_REFINED``, all gradients are zero, and those of the other problems are untouched.

    Reference: Gould, Hartley and Campbell, Deep declarative networks, PAMI 2021; Chen et al., BPnP, CVPR 2020.
    Differs from ACE0, which has no differentiable pose, and from DSAC*, which differentiates the last
    Gauss-Newton step with a constant Jacobian.
    """
    config = config or RefinementConfig()
    scale = config.loss_scale_px if loss_scale_px is None else loss_scale_px
    problem = make_pose_problem(points, pixels, camera, initial, config.loss, weights, scale)
    with torch.no_grad():
        refined = refine_absolute_pose(
            points, pixels, camera, initial, config, weights=weights, loss_scale_px=loss_scale_px
        )
        solved = refined.status == int(PoseStatus.OK)
        pose = _where(solved, refined.cam_from_world, _identity(initial))
        factor, converged = _minimum(problem.where(solved), pose)
        status = torch.where(solved & ~converged, int(PoseStatus.NOT_CONVERGED), refined.status)
        solved = solved & converged
        pose = _where(solved, pose, _identity(initial))
    clean = problem.where(solved)
    terms = pose_residuals(clean, pose)
    delta = -factor.where(solved).solve(half_gradient(clean, terms))
    moved = _tangent(delta - delta.detach(), pose)
    cost = robust_cost(clean, terms)  # the pose's own share of its derivative vanishes at a minimum
    return RefinedPose(
        refined.cam_from_world + moved,
        refined.cost + (cost - cost.detach()),
        refined.normal_matrix,
        status,
    )


def refine_unrolled(
    points: Tensor,
    pixels: Tensor,
    camera: PinholeCamera,
    initial: Tensor,
    config: RefinementConfig | None = None,
    *,
    weights: Tensor | None = None,
    loss_scale_px: Tensor | None = None,
) -> RefinedPose:
    """The same minimisation as ``config.iterations`` plain steps that autograd follows back to all inputs.

    Arguments are those of ``refine_absolute_pose``. Each step solves ``(JᵀWJ + damping diag) delta = -JᵀWr``
    and is kept if it does not raise the cost by more than rounding: near the minimum the value no longer
    falls, but the derivative still settles with every further step. ``cam_from_world`` and ``cost`` carry
    gradients, of any order and also to ``initial``; ``normal_matrix`` is a constant. The gradient is that of
    the steps taken, whether or not they reached a minimum, so the status is ``OK`` or ``NOT_REFINED``; with
    the latter the initial pose is returned and all gradients are zero.

    The steps are taken once without a graph, to learn which problems fail, and once more with those replaced
    by harmless ones. About 50 numbers per correspondence and step are kept.

    Reference: Domke, Generic methods for optimization-based modeling, AISTATS 2012. ACE0 has no counterpart.
    """
    config = config or RefinementConfig()
    scale = config.loss_scale_px if loss_scale_px is None else loss_scale_px
    problem = make_pose_problem(points, pixels, camera, initial, config.loss, weights, scale)
    with torch.no_grad():
        final = _descend(problem, initial, config)
        finite = final.cost.isfinite() & final.pose.isfinite().all(-1).all(-1)
        solved = finite & _ScaledCholesky.of(final.normal).definite
        status = torch.where(solved, int(PoseStatus.OK), int(PoseStatus.NOT_REFINED))
    state = _descend(problem.where(solved), _where(solved, initial, _identity(initial)), config)
    rotation = orthonormalise(state.pose[..., :3])
    pose = torch.cat([rotation, state.pose[..., 3:]], dim=-1)
    return RefinedPose(
        _where(solved, pose, initial.detach()),
        torch.where(solved, state.cost, final.cost),
        final.normal,
        status,
    )


class PoseRefinement(nn.Module):
    """Refinement of poses as a layer without parameters of its own: ``refine_implicit`` or ``refine_unrolled``.

    ``config`` holds the number of steps, the robust loss and its scale. ``forward`` takes world ``points``
    (..., n, 3), ``pixels`` (..., n, 2), a camera, ``initial`` poses (..., 3, 4) and optionally ``weights``
    (..., n), and gives a ``RefinedPose``; whatever of these requires a gradient gets one. Failed problems have
    zero gradients and a status that says so.
    """

    def __init__(
        self, config: RefinementConfig | None = None, *, gradient: GradientName = "implicit"
    ) -> None:
        super().__init__()
        if gradient not in ("implicit", "unrolled"):
            raise ValueError(f"No gradient is called {gradient!r}; choose implicit or unrolled.")
        self.config = config or RefinementConfig()
        self.gradient: GradientName = gradient

    def forward(
        self,
        points: Tensor,
        pixels: Tensor,
        camera: PinholeCamera,
        initial: Tensor,
        *,
        weights: Tensor | None = None,
        loss_scale_px: Tensor | None = None,
    ) -> RefinedPose:
        refine = refine_implicit if self.gradient == "implicit" else refine_unrolled
        return refine(
            points, pixels, camera, initial, self.config, weights=weights, loss_scale_px=loss_scale_px
        )

    def extra_repr(self) -> str:
        return f"{self.config}, gradient={self.gradient!r}"


@dataclass(frozen=True, slots=True)
class _ScaledCholesky:
    """Factor of a symmetric matrix ``A`` after scaling to a unit diagonal: metres and radians differ in size."""

    factor: Float[Tensor, "*batch 6 6"]
    scale: Float[Tensor, "*batch 6"]
    definite: Bool[Tensor, "*batch"]
    """Positive definite by a margin of rounding; elsewhere the factor is that of the identity."""

    @classmethod
    def of(cls, matrix: Float[Tensor, "*batch 6 6"]) -> "_ScaledCholesky":
        eye = torch.eye(6, dtype=matrix.dtype, device=matrix.device)
        scale = matrix.diagonal(dim1=-2, dim2=-1).rsqrt()  # not finite where it is not positive
        scaled = matrix * scale[..., None] * scale[..., None, :]
        finite = scaled.isfinite().all(-1).all(-1)
        with torch.no_grad():
            factor, info = torch.linalg.cholesky_ex(_where(finite, scaled, eye))
            pivots = factor.diagonal(dim1=-2, dim2=-1).square().amin(-1)
            definite = finite & (info == 0) & (pivots > _LEAST_PIVOT * torch.finfo(matrix.dtype).eps)
        return cls(factor, scale, finite).where(definite)

    def where(self, kept: Bool[Tensor, "*batch"]) -> "_ScaledCholesky":
        """The identity in place of all others."""
        eye = torch.eye(6, dtype=self.factor.dtype, device=self.factor.device)
        factor, scale = _where(kept, self.factor, eye), torch.where(kept[..., None], self.scale, 1.0)
        return replace(self, factor=factor, scale=scale, definite=kept)

    def solve(self, vector: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 6"]:
        """``A⁻¹ v``."""
        scaled = (self.scale * vector)[..., None]
        return self.scale * torch.cholesky_solve(scaled, self.factor)[..., 0]


@dataclass(frozen=True, slots=True)
class _State:
    pose: Float[Tensor, "*batch 3 4"]
    cost: Float[Tensor, "*batch"]
    noise: Float[Tensor, "*batch"]
    """By how much rounding may change the cost."""
    normal: Float[Tensor, "*batch 6 6"]
    gradient: Float[Tensor, "*batch 6"]


def _linearised(problem: PoseProblem, pose: Tensor) -> _State:
    terms = pose_residuals(problem, pose)
    cost = robust_cost(problem, terms)
    with torch.no_grad():
        noise = 4 * (cost * rounding_cost(problem, terms, pose)).sqrt()
    return _State(pose, cost, noise, gauss_newton_matrix(problem, terms), half_gradient(problem, terms))


def _descend(problem: PoseProblem, initial: Tensor, config: RefinementConfig) -> _State:
    """Levenberg-Marquardt as in ``refine_absolute_pose``, without operations that autograd cannot follow."""
    state = _linearised(problem, initial)
    damping = torch.full_like(state.cost, config.initial_damping)
    for _ in range(config.iterations):
        pose, usable = _stepped(state, damping)
        trial = _linearised(problem, pose)
        kept = usable & (trial.cost <= state.cost + state.noise)  # false for NaN
        damping = damping * torch.where(kept, config.damping_decrease, config.damping_increase)
        damping = damping.clamp(1e-9, 1e9)
        state = _State(
            _where(kept, trial.pose, state.pose),
            torch.where(kept, trial.cost, state.cost),
            torch.where(kept, trial.noise, state.noise),
            _where(kept, trial.normal, state.normal),
            torch.where(kept[..., None], trial.gradient, state.gradient),
        )
    return state


def _stepped(state: _State, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The pose after one damped step, and whether the equations could be solved; if not, the same pose."""
    diagonal = state.normal.diagonal(dim1=-2, dim2=-1)
    damped = state.normal + torch.diag_embed(damping[..., None] * diagonal)
    usable = _ScaledCholesky.of(damped.detach()).definite
    eye = torch.eye(6, dtype=damped.dtype, device=damped.device)
    factor, _ = torch.linalg.cholesky_ex(_where(usable, damped, eye))
    gradient = torch.where(usable[..., None], state.gradient, 0.0)
    delta = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    return compose(small_motion(delta), state.pose), usable


def _minimum(problem: PoseProblem, pose: Tensor) -> tuple[_ScaledCholesky, Tensor]:
    """The Hessian's factor, and whether the pose is a minimum: curved upwards on all sides, and so flat that a
    Newton step would move the image points by next to nothing (``CONVERGED_SHARE``)."""
    terms = pose_residuals(problem, pose)
    factor = _ScaledCholesky.of(hessian(problem, terms))
    gradient = half_gradient(problem, terms)
    motion = (gradient * factor.solve(gradient)).sum(-1)  # sum of weighted squared motions, in pixels²
    rounding = _ROUNDINGS**2 * rounding_cost(problem, terms, pose)
    resting = motion <= CONVERGED_SHARE**2 * robust_cost(problem, terms) + rounding
    return factor, factor.definite & resting


def _tangent(delta: Tensor, pose: Tensor) -> Tensor:
    """The derivative of ``retract(pose, .)`` at zero, along ``delta``."""
    turn = hat(delta[..., 3:]) @ pose
    return turn + torch.nn.functional.pad(delta[..., :3, None], (3, 0))


def _identity(like: Tensor) -> Tensor:
    return torch.eye(3, 4, dtype=like.dtype, device=like.device)


def _where(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Choice between matrices, one condition each."""
    return torch.where(condition[..., None, None], first, second)
