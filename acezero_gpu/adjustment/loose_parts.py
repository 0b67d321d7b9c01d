"""Parts of a reconstruction that hardly any common point ties together, put where matches across them say."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.adjustment.match_graph import PairMatches, pair_agreement
from acezero_gpu.adjustment.merging import connected_components
from acezero_gpu.geometry import Similarity, fit_similarity, reproject, rotation_angle_deg, undistort_pixels
from acezero_gpu.runtime import chunk_ranges, chunk_size_for

CHUNK_BYTES = 64 * 2**20
"""Working memory of one block of hypotheses."""
MOST_SCORED = 4096
"""Matches that all hypotheses are judged by; the best one is judged by every match."""


@dataclass(frozen=True, slots=True)
class LoosePartsConfig:
    """What ties views together, and when a part is moved."""

    min_shared: int = 15
    """Two views hold each other if so many of their own matches show one point in both."""
    min_inliers: int = 30
    """Different points on either side that must agree on where a part belongs."""
    min_share: float = 0.2
    """So must this share of the matches across."""
    min_gain: float = 2.0
    """And this many times as many matches as agree where the part is already."""
    max_turn_deg: float = 30.0
    """A part that would turn by more is not moved: points without parallax hold rotations well, and what looks the
    same from elsewhere is another place."""
    max_error_px: float = 8.0
    """Such a point, moved along with its part, reprojects on the other side with at most this error, and the other
    way round; in pixels at a shortest side of 480, scaled with the resolution."""
    hypotheses: int = 1024
    """Similarities of three points that are tried."""
    refits: int = 4
    """Times that the best one is fitted to all that agree with it."""


@dataclass(frozen=True, slots=True)
class _Across:
    """Matches between two parts whose keypoints show a point of their own part each."""

    points_main: Int[Tensor, " m"]
    points_part: Int[Tensor, " m"]
    of_main: Float[Tensor, "m 3"]
    """Where these points are."""
    of_part: Float[Tensor, "m 3"]
    in_main: Float[Tensor, "m 3 4"]
    """Pose of the view of the largest part."""
    in_part: Float[Tensor, "m 3 4"]
    pixels_main: Float[Tensor, "m 2"]
    pixels_part: Float[Tensor, "m 2"]

    def __len__(self) -> int:
        return len(self.points_main)

    def where(self, rows: Tensor) -> "_Across":
        """The matches that ``rows`` (a mask or indices) chooses."""
        return _Across(*(getattr(self, item.name)[rows] for item in fields(self)))

    @property
    def different(self) -> int:
        """Points of the side that has fewer of them: one point seen in many views is one."""
        return min(len(self.points_main.unique()), len(self.points_part.unique()))


def settle_loose_parts(
    joint: JointResult,
    used: PairMatches,
    matches: PairMatches,
    keypoint_pixels: Float[Tensor, "v k 2"],
    config: LoosePartsConfig,
    *,
    pixel_scale: float,
    generator: torch.Generator,
) -> JointResult | None:
    """The views and points with every part at its place; None where nothing is to be moved.

    Where a camera turned on the spot, what follows hangs on points without parallax: its rotation is right, its scale
    and place are guesses. Adjustment cannot mend it, since matches with what the camera saw before fit no guess and
    count as wrong. But points on either side of such matches lie in the same places, up to a similarity, which RANSAC
    finds (three points, Umeyama, PAMI 1991). Parts join the largest one after another, the best supported first.

    ``used`` are the matches that ``joint`` is made of, ``matches`` those that may tell where a part belongs.
    """
    keypoint_pixels = undistort_pixels(keypoint_pixels, joint.camera, joint.radial)
    point_of = torch.full(keypoint_pixels.shape[:2], -1, device=joint.points.device)
    point_of[joint.view_index, joint.keypoint_index] = joint.point_index
    label = _tied_views(used, point_of, config.min_shared)
    ends = (point_of[matches.view_a, matches.keypoint_a], point_of[matches.view_b, matches.keypoint_b])
    open_matches = (ends[0] >= 0) & (ends[1] >= 0) & (label[matches.view_a] != label[matches.view_b])
    if not bool(open_matches.any()):
        return None
    matches = matches.where(open_matches)
    main = torch.bincount(label).argmax()
    max_error_px = config.max_error_px * pixel_scale
    moved: JointResult | None = None
    while True:
        best: tuple[int, Tensor, Similarity] | None = None
        for part in label[torch.cat([matches.view_a, matches.view_b])].unique():
            if part == main:
                continue
            across = _across(moved or joint, matches, label, main, part, keypoint_pixels, point_of)
            found = _place(across, joint, config, max_error_px, generator)
            if found is not None and (best is None or found[0] > best[0]):
                best = (found[0], part, found[1])
        if best is None:
            return moved
        _, part, similarity = best
        moved = _with_part_moved(moved or joint, label == part, similarity)
        label = torch.where(label == part, main, label)
        matches = matches.where(label[matches.view_a] != label[matches.view_b])


def _tied_views(matches: PairMatches, point_of: Int[Tensor, "v k"], min_shared: int) -> Int[Tensor, " v"]:
    """A label per view, the same for views that common points tie together."""
    ends = point_of[matches.view_a, matches.keypoint_a], point_of[matches.view_b, matches.keypoint_b]
    pairs = pair_agreement(matches, (ends[0] >= 0) & (ends[0] == ends[1]), len(point_of))
    tied = pairs.explained >= min_shared
    return connected_components(pairs.view_a[tied], pairs.view_b[tied], len(point_of))


def _across(
    joint: JointResult,
    matches: PairMatches,
    label: Int[Tensor, " v"],
    main: Tensor,
    part: Tensor,
    keypoint_pixels: Float[Tensor, "v k 2"],
    point_of: Int[Tensor, "v k"],
) -> _Across:
    forward = (label[matches.view_a] == main) & (label[matches.view_b] == part)
    backward = (label[matches.view_a] == part) & (label[matches.view_b] == main)
    ahead, back = matches.where(forward), matches.where(backward)
    view_main, slot_main = (
        torch.cat([ahead.view_a, back.view_b]),
        torch.cat([ahead.keypoint_a, back.keypoint_b]),
    )
    view_part, slot_part = (
        torch.cat([ahead.view_b, back.view_a]),
        torch.cat([ahead.keypoint_b, back.keypoint_a]),
    )
    points_main, points_part = point_of[view_main, slot_main], point_of[view_part, slot_part]
    return _Across(
        points_main,
        points_part,
        joint.points[points_main].double(),
        joint.points[points_part].double(),
        joint.cam_from_world[view_main].double(),
        joint.cam_from_world[view_part].double(),
        keypoint_pixels[view_main, slot_main].double(),
        keypoint_pixels[view_part, slot_part].double(),
    )


def _place(
    across: _Across,
    joint: JointResult,
    config: LoosePartsConfig,
    max_error_px: float,
    generator: torch.Generator,
) -> tuple[int, Similarity] | None:
    """How many points agree, and the similarity that puts the part where it belongs; None if too few do."""
    count = len(across)
    # What is about where it belongs adjustment alone puts there, more exactly.
    now = int(_agreeing(across, joint, _unmoved(across.of_main), max_error_px).sum())
    enough = max(config.min_inliers, config.min_share * count, config.min_gain * now)
    if count < enough:
        return None
    scored = across
    if count > MOST_SCORED:
        chance = torch.rand(count, generator=generator, device=generator.device)
        scored = across.where(chance.argsort()[:MOST_SCORED].to(across.of_main.device))
    sample = torch.randint(len(scored), (config.hypotheses, 3), generator=generator, device=generator.device)
    sample = sample.to(across.of_main.device)
    tried = fit_similarity(scored.of_part[sample], scored.of_main[sample])
    agree = _agreeing(scored, joint, tried, max_error_px).sum(1)
    best = torch.where(_turn_deg(tried) <= config.max_turn_deg, agree, -1).argmax()
    similarity = tried[best[None]]
    chosen = _agreeing(across, joint, similarity, max_error_px)[0]
    for _ in range(config.refits):
        refitted = fit_similarity(across.of_part[None], across.of_main[None], chosen[None].double())
        agreeing = _agreeing(across, joint, refitted, max_error_px)[0]
        if int(agreeing.sum()) < int(chosen.sum()):
            break
        chosen, similarity = agreeing, refitted
    far = float(_turn_deg(similarity)[0]) > config.max_turn_deg
    if far or int(chosen.sum()) < enough or across.where(chosen).different < config.min_inliers:
        return None
    return int(chosen.sum()), similarity[0]


def _agreeing(
    across: _Across, joint: JointResult, similarity: Similarity, max_error_px: float
) -> Bool[Tensor, "h m"]:
    """Which points reproject well on the other side, both ways, under each similarity."""
    rows = []
    for chunk in chunk_ranges(
        len(similarity.scale), chunk_size_for(32 * 8 * max(1, len(across)), CHUNK_BYTES)
    ):
        part = similarity[chunk]
        tried = len(part.scale)
        there = part.apply(across.of_part.expand(tried, -1, -1))
        here = part.inverse().apply(across.of_main.expand(tried, -1, -1))
        good = (part.scale > 0)[:, None]
        for points, poses, pixels in (
            (there, across.in_main, across.pixels_main),
            (here, across.in_part, across.pixels_part),
        ):
            seen = reproject(points.transpose(0, 1), poses, joint.camera)
            error = (seen.pixels - pixels[:, None]).norm(dim=-1)
            good = good & ((error < max_error_px) & (seen.depth > 0)).T
        rows.append(good)
    return torch.cat(rows)


def _unmoved(like: Float[Tensor, "m 3"]) -> Similarity:
    """The identity, as a batch of one."""
    eye = torch.eye(3, dtype=like.dtype, device=like.device)
    return Similarity(like.new_ones(1), eye[None], like.new_zeros(1, 3))


def _turn_deg(similarity: Similarity) -> Float[Tensor, " h"]:
    unmoved = _unmoved(similarity.translation).rotation.expand_as(similarity.rotation)
    return rotation_angle_deg(similarity.rotation, unmoved)


def _with_part_moved(joint: JointResult, views: Bool[Tensor, " v"], similarity: Similarity) -> JointResult:
    """These views moved, and the points that no other view sees."""
    dtype = joint.points.dtype
    poses, points = joint.cam_from_world.clone(), joint.points.clone()
    poses[views] = similarity.apply_to_cameras(poses[views].double()).to(dtype)
    inside = views[joint.view_index]
    theirs = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    theirs[joint.point_index[inside]] = True
    theirs[joint.point_index[~inside]] = False
    points[theirs] = similarity.apply(points[theirs].double()).to(dtype)
    return replace(joint, cam_from_world=poses, points=points)
