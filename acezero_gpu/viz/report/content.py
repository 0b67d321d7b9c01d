"""What a report shows, as plain data: whoever fills it in need not know how it is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from acezero_gpu.mapping import TrainingProgress

PlacedBy = Literal["map", "keypoints", "unknown", "none"]


@dataclass(frozen=True, slots=True)
class ReportImage:
    """One image of the run."""

    name: str
    """As it was given; shown as text, whatever it holds."""
    registered: bool
    placed_by: PlacedBy
    """``none`` if it is not registered, ``unknown`` for runs that did not say."""
    confidence: float
    """In the unit of ``ReportContent.confidence_unit``."""
    reason: str | None = None
    """Why it has no pose."""
    picture: UInt8[Tensor, "h w 3"] | None = None
    """A small version, upright; None if the file was not found."""


@dataclass(frozen=True, slots=True)
class ReportRound:
    """One round of the loop."""

    label: str
    registered: int
    registered_by_map: int | None
    """None if the run did not say."""
    focal_px: float
    training: tuple[TrainingProgress, ...] = ()


@dataclass(frozen=True, slots=True)
class CloseLook:
    """Pictures of one image in detail."""

    title: str
    text: str
    figures: tuple[tuple[str, Figure], ...]
    """A sentence below each figure, and the figure."""


@dataclass(frozen=True, slots=True)
class ReportContent:
    """All that a page says."""

    title: str
    finished: bool
    """Whether the run came to its end."""
    images: tuple[ReportImage, ...]
    """In the order of the run."""
    cam_from_world: Float[Tensor, "n 3 4"]
    """Poses of the images; those that are not registered are not shown."""
    points: Float[Tensor, "p 3"]
    colours: UInt8[Tensor, "p 3"]
    aspect: float
    """Width over height of the images."""
    rounds: tuple[ReportRound, ...]
    stage_seconds: Mapping[str, float]
    confidence_unit: Literal["% of cells", "cells"]
    min_confidence: float
    """From here on an image counts as registered by the map; in the same unit."""
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value of further figures, for the head of the page."""
    settings: tuple[tuple[str, str], ...] = ()
    """What the run was made with, for the end of the page."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that could not be read, and why."""
    notes: tuple[str, ...] = ()
    """What is missing from the page, a sentence each."""
    close_looks: tuple[CloseLook, ...] = ()

    @property
    def registered(self) -> int:
        """How many images have a pose."""
        return sum(image.registered for image in self.images)
