"""What the loop knows after a step, and what it gives out."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.data.point_tracks import PointTracks
from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.geometry import PinholeCamera, se3_from_matrix
from acezero_gpu.mapping import TrainingProgress
from acezero_gpu.network import SceneMap
from acezero_gpu.reconstruction.image_bank import ImageBank

StepName = Literal["seed", "iteration", "final"]


class ReconstructionError(RuntimeError):
    """The images do not allow a reconstruction; the message says why and what to try."""


@dataclass(frozen=True, slots=True)
class ReconstructionState:
    """Current poses of all images and the camera they share."""

    cam_from_world: Float[Tensor, "n 3 4"]
    """World to camera; meaningless where ``inlier_count`` is 0."""
    inlier_count: Float[Tensor, " n"]
    """Cells that agree with the pose."""
    registered: Bool[Tensor, " n"]
    """Which images have enough of them."""
    camera: PinholeCamera
    """In pixels of the network image."""
    radial: Float[Tensor, " 2"]
    """``k1, k2`` of the shared lens."""
    map_inlier_count: Float[Tensor, " n"]
    """Cells that agreed with the pose that the last map gave by itself."""
    by_map: Bool[Tensor, " n"]
    """Images that the last map registered by itself."""
    held: Bool[Tensor, " n"]
    """Whose poses keypoint tracks hold: an adjustment has confirmed them, whatever the map says."""
    contradicted: Bool[Tensor, " n"]
    """Images that are not registered because their keypoints contradict the pose that a map gave them."""
    tracks: PointTracks | None = None
    """The points of the adjustment that the poses stem from; None for poses of a map."""

    @staticmethod
    def by_one_map(
        cam_from_world: Float[Tensor, "n 3 4"],
        inlier_count: Float[Tensor, " n"],
        registered: Bool[Tensor, " n"],
        camera: PinholeCamera,
        radial: Float[Tensor, " 2"],
    ) -> "ReconstructionState":
        """Poses as a map gave them, before keypoints have had their say."""
        nothing = torch.zeros_like(registered)
        return ReconstructionState(
            cam_from_world,
            inlier_count,
            registered,
            camera,
            radial,
            map_inlier_count=inlier_count,
            by_map=registered,
            held=nothing,
            contradicted=nothing,
        )

    @property
    def registered_by_map(self) -> int:
        """How many images the last map registered by itself."""
        return int(self.by_map.sum())

    @property
    def share(self) -> float:
        """Share of registered images."""
        return float(self.registered.float().mean())


@dataclass(frozen=True, slots=True)
class Placement:
    """How each image came by its pose, or why it has none; on the CPU."""

    registered: Bool[Tensor, " n"]
    """The map or keypoint tracks confirm the pose."""
    by_map: Bool[Tensor, " n"]
    """The map of this round registered the image by itself; none, where the round has no map."""
    held: Bool[Tensor, " n"]
    """Keypoint tracks hold the pose."""
    contradicted: Bool[Tensor, " n"]
    """Keypoints contradict the pose that a map gave."""
    map_inlier_count: Float[Tensor, " n"]
    """Cells that agreed with the pose that the map of this round gave."""

    @staticmethod
    def of(state: ReconstructionState) -> "Placement":
        """What a state says about its images."""
        return Placement(
            state.registered.cpu(),
            state.by_map.cpu(),
            state.held.cpu(),
            state.contradicted.cpu(),
            state.map_inlier_count.cpu(),
        )


@dataclass(frozen=True, slots=True)
class ReconstructionStep:
    """One round: a map, the poses it was made from, and the poses it gives."""

    index: int
    """0 for the seed, then upwards; the final round is the last."""
    name: StepName
    scene_map: SceneMap | None
    """None where keypoints alone placed the images: a seed that has no map yet. The final round always has one."""
    preliminary: PosedViews
    """Poses of the mapped images after mapping (without a map, of the seed); their confidence is inf, that of the
    other images 0."""
    views: PosedViews
    """Poses of all images after registration; confidence is the inlier count."""
    registered: int
    """Images with a pose that the map or keypoint tracks confirm."""
    registered_by_map: int
    """Those of them that the map registered by itself."""
    stop_reason: str | None
    """Set when the loop ends after this step or goes to the final round next."""
    training_log: tuple[TrainingProgress, ...]
    """Of the map; empty without one."""
    placement: Placement
    """Of ``views``."""
    tracks: PointTracks | None = None
    """Points that hold the poses of ``views``, by rows of ``views``; None where these are the map's own."""
    radial: tuple[float, float] = (0.0, 0.0)
    """``k1, k2`` of the lens that ``views`` were posed with; an adjustment after the map may have moved them."""


def to_posed_views(
    bank: ImageBank,
    cam_from_world: Float[Tensor, "n 3 4"],
    confidence: Float[Tensor, " n"],
    camera: PinholeCamera,
) -> PosedViews:
    """Poses of all images with the focal length in pixels of the image files, on the CPU."""
    focal = torch.full((len(bank),), bank.focal_original_px(camera))
    return PosedViews(
        bank.images.image_set.names, se3_from_matrix(cam_from_world.cpu()), focal, confidence.float().cpu()
    )


def posed_state(
    bank: ImageBank,
    cam_from_world: Float[Tensor, "n 3 4"],
    posed: Bool[Tensor, " n"],
    camera: PinholeCamera,
    radial: Float[Tensor, " 2"] | None = None,
) -> ReconstructionState:
    """Images that have a pose although no map registered them; the lens is free of distortion if not said."""
    device, posed = bank.device, posed.to(bank.device)
    state = ReconstructionState.by_one_map(
        cam_from_world.to(device, torch.float32),
        torch.zeros(len(bank), device=device),
        posed,
        camera,
        torch.zeros(2, device=device) if radial is None else radial,
    )
    return replace(state, by_map=torch.zeros_like(posed), held=posed)
