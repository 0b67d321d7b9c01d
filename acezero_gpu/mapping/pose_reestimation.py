"""Re-estimation of poses against the map that is being trained, by the batched pose solver."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import (
    PinholeCamera,
    Reprojection,
    camera_centres,
    compose,
    invert,
    orthonormalise,
    reproject,
    rotation_angle_deg,
    undistort_pixels,
)
from acezero_gpu.geometry.reprojection import MIN_DEPTH
from acezero_gpu.mapping.feature_buffer import FeatureBuffer
from acezero_gpu.pnp import PoseStatus, RefinementConfig, refine_absolute_pose
from acezero_gpu.pnp.levenberg_marquardt import small_motion
from acezero_gpu.runtime import in_chunks

SOLVER = RefinementConfig(iterations=6, loss="cauchy")
"""Of each round of a re-estimation; the scale of the loss is each frame's own."""
ROUNDS = 2
"""The first one comes near, the second one has a scale of the loss that fits there."""
SMALLEST_SCALE = 0.1
"""The least scale of the robust loss, as a share of the inlier threshold."""
CHUNK_PATCHES = 65536
"""Patches that are predicted and solved for together."""

Predict = Callable[[Float[Tensor, "n c"]], Float[Tensor, "n 3"]]
"""From features to world points: the map as it is now."""


@dataclass(frozen=True, slots=True)
class ReestimationConfig:
    """How often frames are located anew in the map of the moment, and how far that is believed."""

    start: int = 100
    """Steps of the round before the first re-estimation; while poses ``wait``, none happens either."""
    interval: int = 50
    """Steps between two re-estimations, at least 1."""
    trust: float = 0.25
    """Share of the way from the current pose to the re-estimated one, from 0 (stay) to 1 (take it)."""
    sample: int = 256
    """Patches of each frame that it is located by, drawn anew each time; at least 4."""
    min_inlier_share: float = 0.4
    """A frame stays if a smaller share of its sample lies within the inlier threshold of the new pose."""
    max_jump_deg: float = 10.0
    """A frame stays if it would turn by more than this, or shift by more than this angle seen from the median depth
    of its sample."""

    def __post_init__(self) -> None:
        if self.interval < 1 or self.sample < 4:
            raise ValueError("re-estimation needs an interval of at least 1 and a sample of at least 4")
        if not 0 <= self.trust <= 1:
            raise ValueError(f"the trust in re-estimated poses is a share from 0 to 1, not {self.trust:g}")

    def due(self, iteration: int, wait: int) -> bool:
        """Whether poses are re-estimated before step ``iteration`` (from 0); never with a trust of 0."""
        since = iteration - max(self.start, wait)
        return self.trust > 0 and since >= 0 and since % self.interval == 0


@dataclass(frozen=True, slots=True)
class ReestimatedPoses:
    """One row per frame."""

    cam_from_world: Float[Tensor, "f 3 4"]
    """``trust`` of the way to the new pose; exactly the current pose where ``accepted`` is False."""
    accepted: Bool[Tensor, " f"]
    """Frames whose new pose was found, has enough inliers and is near."""


@torch.no_grad()
def reestimate_against_map(
    buffer: FeatureBuffer,
    frames: Int[Tensor, " f"],
    predict: Predict,
    current: Float[Tensor, "f 3 4"],
    camera: PinholeCamera,
    config: ReestimationConfig,
    *,
    inlier_px: float,
    generator: torch.Generator,
    radial: Float[Tensor, " 2"] | None = None,
    chunk_patches: int = CHUNK_PATCHES,
) -> ReestimatedPoses:
    """Locates each frame by a random sample of its patches in the buffer and the points that ``predict`` gives.

    ``current`` has one row per entry of ``frames``, which index the buffer. Chunks bound the memory and change no
    result: all draws are made first.
    """
    slots = buffer.draw_slots((len(frames), config.sample), generator)

    def reestimate(chunk: slice) -> ReestimatedPoses:
        drawn = slots[chunk]
        patches = buffer.patches(frames[chunk, None].expand_as(drawn).flatten(), drawn.flatten())
        points = predict(patches.features).float().unflatten(0, drawn.shape)
        pixels = patches.pixels.unflatten(0, drawn.shape)
        if radial is not None:
            pixels = undistort_pixels(pixels, camera, radial)
        return reestimate_poses(current[chunk], points, pixels, camera, config, inlier_px=inlier_px)

    at_once = max(1, chunk_patches // config.sample)
    parts = in_chunks("re-estimation of poses", len(frames), at_once, reestimate)
    return ReestimatedPoses(
        torch.cat([part.cam_from_world for part in parts]), torch.cat([part.accepted for part in parts])
    )


@torch.no_grad()
def reestimate_poses(
    current: Float[Tensor, "f 3 4"],
    points: Float[Tensor, "f n 3"],
    pixels: Float[Tensor, "f n 2"],
    camera: PinholeCamera,
    config: ReestimationConfig,
    *,
    inlier_px: float,
) -> ReestimatedPoses:
    """Minimises each frame's robust reprojection error from its current pose on, and goes ``trust`` of the way.

    The loss is Cauchy's. Its scale is the frame's median error where a round starts, at most ``inlier_px``: wide while
    the map is rough or the pose is off, narrow once they agree. Nothing here waits for the device.

    Nothing anchors the frames as a block: were the map to follow at once, all could walk away together. What holds
    them is that the map follows slowly and each pose goes part of the way. Every frame is located in the same points,
    which other frames hold too and which move by small gradient steps only, and a motion of the whole block away from
    them is an error like any other, which the next re-estimation takes back. What remains free are the seven degrees of
    freedom of a similarity, along which no error pulls, and deformations that map and poses share: they fade as slowly
    as with any refinement by the map. To undo the frames' common motion each time helped on synthetic views here and
    harmed there, so it is not done.

    A rough map bends: frames that are located in it lose more than they gain, hence the demand on the share of inliers.

    Differs from ACE0, whose poses move along the gradient of the mapping loss only.
    """
    start = reproject(points, current, camera)
    target, seen = current, start
    solved = torch.ones_like(current[:, 0, 0], dtype=torch.bool)
    for _ in range(ROUNDS):
        median = _error_px(seen, pixels).nanmedian(dim=-1).values.nan_to_num(inlier_px)
        scale = median.clamp(SMALLEST_SCALE * inlier_px, inlier_px)
        found = refine_absolute_pose(points, pixels, camera, target, SOLVER, loss_scale_px=scale)
        target = found.cam_from_world
        solved = solved & (found.status == int(PoseStatus.OK))
        seen = reproject(points, target, camera)
    inliers = (_error_px(seen, pixels) < inlier_px).float().mean(-1)
    accepted = (
        solved
        & (inliers >= config.min_inlier_share)
        & (_jump_deg(current, target, start.depth) <= config.max_jump_deg)
    )
    moved = step_towards(current, target, config.trust)
    return ReestimatedPoses(torch.where(accepted[:, None, None], moved, current), accepted)


def step_towards(
    current: Float[Tensor, "*batch 3 4"], target: Float[Tensor, "*batch 3 4"], share: float
) -> Float[Tensor, "*batch 3 4"]:
    """The pose at ``share`` of the way: ``retract(current, share * delta)`` where ``retract(current, delta)`` is
    ``target``.

    The rotation angle between the two must be below 180°. Written without the exponential and the logarithm of
    pypose, which wait for the device.
    """
    relative = compose(target, invert(current))
    rotation = relative[..., :3]
    twice_sine_axis = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        dim=-1,
    )
    twice_sine = twice_sine_axis.norm(dim=-1, keepdim=True)
    twice_cosine = rotation.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1
    angle = torch.atan2(twice_sine, twice_cosine)
    axis = twice_sine_axis / twice_sine.clamp_min(torch.finfo(twice_sine.dtype).tiny)
    # ``small_motion`` turns by twice the arc tangent of half the length of its rotation vector.
    turn = 2 * torch.tan(share * angle / 2) * axis
    moved = compose(small_motion(torch.cat([share * relative[..., 3], turn], dim=-1)), current)
    return torch.cat([orthonormalise(moved[..., :3]), moved[..., 3:]], dim=-1)


def _error_px(seen: Reprojection, pixels: Float[Tensor, "f n 2"]) -> Float[Tensor, "f n"]:
    """Infinite behind the camera."""
    return (seen.pixels - pixels).norm(dim=-1).masked_fill(seen.depth <= MIN_DEPTH, math.inf)


def _jump_deg(
    current: Float[Tensor, "f 3 4"], target: Float[Tensor, "f 3 4"], depth: Float[Tensor, "f n"]
) -> Float[Tensor, " f"]:
    """The larger of the rotation angle and the angle that the shift of the centre is seen at from the median depth."""
    shift = (camera_centres(target) - camera_centres(current)).norm(dim=-1)
    typical = depth.nanmedian(dim=-1).values.clamp_min(MIN_DEPTH)
    turn = rotation_angle_deg(current[..., :3], target[..., :3])
    return torch.maximum(turn, torch.rad2deg(torch.atan2(shift, typical)))
