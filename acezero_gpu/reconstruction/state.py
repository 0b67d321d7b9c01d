"""What the loop knows after a step, and what it gives out."""

from dataclasses import dataclass
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
    registered_by_map: int
    """Images that the last map registered by itself."""
    held: Bool[Tensor, " n"]
    """Whose poses keypoint tracks hold: an adjustment has confirmed them, whatever the map says."""
    tracks: PointTracks | None = None
    """The points of the adjustment that the poses stem from; None for poses of a map."""

    @property
    def share(self) -> float:
        """Share of registered images."""
        return float(self.registered.float().mean())


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
    tracks: PointTracks | None = None
    """Points that hold the poses of ``views``, by rows of ``views``; None where these are the map's own."""


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
    device = bank.device
    none = torch.zeros(len(bank), device=device)
    return ReconstructionState(
        cam_from_world.to(device, torch.float32),
        none,
        posed.to(device),
        camera,
        torch.zeros(2, device=device) if radial is None else radial,
        registered_by_map=0,
        held=posed.to(device),
    )
