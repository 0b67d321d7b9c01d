"""What a reconstruction leaves to be looked at afterwards: its rounds, and how each image fared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

import torch

from acezero_gpu.adjustment.rigid_parts import rigid_parts
from acezero_gpu.data.image_set import Skipped
from acezero_gpu.geometry import camera_centres
from acezero_gpu.mapping import TrainingProgress
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.loop_config import LoopConfig
from acezero_gpu.reconstruction.state import Placement, ReconstructionStep, StepName

PlacedBy = Literal["map", "keypoints", "none"]
MOST_STRETCHES = 4
"""So many stretches of images are named in a sentence."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round of the loop."""

    index: int
    """0 for the seed, then upwards."""
    name: StepName
    mapped: int
    """Images that its map was trained on; 0 where keypoints alone placed images, without a map."""
    registered: int
    """Images with a pose after it."""
    registered_by_map: int
    """Those of them that its map registered by itself."""
    focal_px: float
    """In pixels of the image files, after the round."""
    stop_reason: str | None
    seconds: Mapping[str, float]
    """Of its stages; what came before the first round counts to it."""
    training: tuple[TrainingProgress, ...]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image after the last round."""

    name: str
    confidence: float
    """As in the pose file."""
    placed_by: PlacedBy
    map_inlier_share: float
    """Share of its cells that agree with the pose that the map alone gives it."""
    reason: str | None
    """Why the image has no pose, as far as the loop knows; None if it has one."""
    scale_part: int = 0
    """Images of one number other than 0 are of one scale that hardly any point ties to that of the others. 0 for all
    others, those included that too few points hold to tell."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """The rounds so far; grows by ``after``."""

    image_root: str
    """The folder from which the names of the images are paths."""
    image_size_px: tuple[int, int]
    """Width and height of every image file."""
    skipped: tuple[Skipped, ...]
    """Files that could not be read."""
    cells: int
    """Scene coordinates that the map predicts per image."""
    min_confidence: float
    """An image with less is not registered."""
    keypoints_place: bool
    """Whether the loop lets keypoints place images that the map misses."""
    rounds: tuple[RoundRecord, ...] = ()
    images: tuple[ImageRecord, ...] = ()
    poses_fixed: bool = False
    """Whether some poses are held as they were given: they hold the scale as well."""

    @staticmethod
    def start(bank: ImageBank, config: LoopConfig, *, poses_fixed: bool = False) -> "RunHistory":
        """Before the first round."""
        files = bank.images.image_set
        cells = bank.grid[0] * bank.grid[1]
        return RunHistory(
            str(files.root),
            (files.width, files.height),
            files.skipped,
            cells,
            config.registration.min_inlier_share * cells,
            config.joint.when != "off",
            poses_fixed=poses_fixed,
        )

    @property
    def uncertain_scale(self) -> str | None:
        """A sentence on the images whose scale against that of the others is a guess; None if there are none."""
        parts: dict[int, list[int]] = {}
        for row, image in enumerate(self.images):
            if image.scale_part > 0:
                parts.setdefault(image.scale_part, []).append(row)
        if not parts:
            return None
        groups = [f"{len(rows)} images ({self._stretches(rows)})" for rows in parts.values()]
        each, factor = (
            ("them", "one factor") if len(groups) == 1 else ("each of these groups", "a factor for each")
        )
        return (
            f"Hardly any point with parallax ties {each} to the rest: {' and '.join(groups)}. The camera may have "
            "turned on the spot in between. Directions hold, but distances may be too long or too short there, by "
            f"{factor}; pictures taken while walking from one place to the other would fix it."
        )

    def _stretches(self, rows: Sequence[int]) -> str:
        """Images that follow each other as "first to last"."""
        known = set(rows)
        starts = [row for row in rows if row - 1 not in known]
        ends = [row for row in rows if row + 1 not in known]
        names = [PurePath(image.name).name for image in self.images]
        told = [
            names[start] + (f" to {names[end]}" if end > start else "")
            for start, end in zip(starts, ends, strict=True)
        ]
        more = f" and {len(told) - MOST_STRETCHES} further stretches" if len(told) > MOST_STRETCHES else ""
        return ", ".join(told[:MOST_STRETCHES]) + more

    def after(self, step: ReconstructionStep, total_seconds: Mapping[str, float]) -> "RunHistory":
        """With one more round; ``total_seconds`` of the stages count from the start of the run."""
        spent = {
            stage: seconds - sum(earlier.seconds.get(stage, 0.0) for earlier in self.rounds)
            for stage, seconds in total_seconds.items()
        }
        record = RoundRecord(
            step.index,
            step.name,
            0 if step.scene_map is None else int((step.preliminary.confidence > 0).sum()),
            step.registered,
            step.registered_by_map,
            float(step.views.focal_px[0]),
            step.stop_reason,
            {stage: seconds for stage, seconds in spent.items() if seconds > 0},
            step.training_log,
        )
        return replace(self, rounds=(*self.rounds, record), images=self._images(step))

    def _images(self, step: ReconstructionStep) -> tuple[ImageRecord, ...]:
        shares = (step.placement.map_inlier_count / self.cells).tolist()
        confidences = step.views.confidence.tolist()
        parts = [0] * len(step.views.names) if self.poses_fixed else _scale_parts(step)
        return tuple(
            ImageRecord(
                name,
                confidences[row],
                _placed_by(step.placement, row),
                shares[row],
                self._reason(step, row, shares[row]),
                parts[row],
            )
            for row, name in enumerate(step.views.names)
        )

    def _reason(self, step: ReconstructionStep, row: int, share: float) -> str | None:
        placement = step.placement
        if placement.registered[row]:
            return None
        if placement.contradicted[row]:
            return "its keypoints contradict the pose that the map gave it"
        if step.scene_map is None:
            return "its keypoints do not place it, and no map has been trained yet"
        needed = 100 * self.min_confidence / self.cells
        agree = f"{100 * share:.1f} % of its cells agree" if share > 0 else "none of its cells agrees"
        reason = f"{agree} with the map, {needed:g} % are needed"
        return f"{reason}, and its keypoints do not place it" if self.keypoints_place else reason


def _scale_parts(step: ReconstructionStep) -> list[int]:
    """Of each image after the last round; 0 before it, and where no points hold the poses."""
    if step.name != "final" or step.tracks is None:
        return [0] * len(step.views.names)
    tracks = step.tracks
    centres = camera_centres(step.views.matrices.as_subclass(torch.Tensor))
    return rigid_parts(tracks.points, centres, tracks.view_index, tracks.point_index).clamp_min(0).tolist()


def _placed_by(placement: Placement, row: int) -> PlacedBy:
    if not placement.registered[row]:
        return "none"
    return "map" if placement.by_map[row] else "keypoints"
